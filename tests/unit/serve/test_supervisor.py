from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ssjf_tools.serve import supervisor as module
from ssjf_tools.serve.health import Patience, Probe
from ssjf_tools.serve.log import ServerLog
from ssjf_tools.serve.processes import SHARED_MEMORY, still_alive
from ssjf_tools.serve.server import Server, new_shm_prefix
from ssjf_tools.serve.stopping import StopSignals
from ssjf_tools.serve.supervisor import Plan, Supervisor

FAKE = Path(__file__).with_name("fake_tritonserver.py")
PATIENCE = Patience(every_s=0.1, answer_s=1.0, failures=2)


class ScriptedSignals(StopSignals):
    """Stop signals without signals: the test's thread counts them up."""

    def __init__(self) -> None:
        self.count = 0

    def wait(self, seconds: float) -> bool:
        deadline = time.monotonic() + min(seconds, 0.1)
        while not self.count and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.count > 0


class Stage:
    """A supervisor over fake servers, in a thread of its own, and what it said and started."""

    def __init__(self, folder: Path, mode: str, grace_s: float = 5.0) -> None:
        self.control = folder / "mode"
        self.control.write_text(mode)
        self.signals = ScriptedSignals()
        self.said: list[str] = []
        self.servers: list[Server] = []
        self.prefixes: list[str] = []
        self.ready = 0
        self.exit_code: int | None = None
        self._log = folder / "log"
        self._port = _free_port()
        url = f"127.0.0.1:{self._port}"
        plan = Plan(
            self._start,
            lambda _server: Probe(url, "secret", "key", PATIENCE, lambda: 0.0),
            ServerLog(self._log),
            PATIENCE,
            20.0,
            grace_s,
            module.RELOADABLE,
        )
        self.supervisor = Supervisor(plan, self.signals, self.said.append)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _start(self) -> Server:
        self.prefixes.append(new_shm_prefix("test"))
        words = [f"--port={self._port}", f"--control={self.control}", f"--prefix={self.prefixes[-1]}"]
        server = Server([sys.executable, str(FAKE), *words], dict(os.environ), self._log, self.prefixes[-1])
        self.servers.append(server)
        return server

    def _run(self) -> None:
        self.exit_code = self.supervisor.run(self._on_ready)

    def _on_ready(self, _server: Server) -> None:
        self.ready += 1

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not come; said: {self.said}"
            time.sleep(0.01)

    def until_ready(self, times: int) -> None:
        self.until(lambda: self.ready == times, f"ready number {times}")

    def stop(self) -> None:
        self.signals.count += 1
        self.thread.join(30)

    def leftovers(self) -> list[str]:
        segments = [path.name for prefix in self.prefixes for path in SHARED_MEMORY.glob(f"{prefix}*")]
        return segments + [str(pid) for pid in still_alive({server.pid for server in self.servers})]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Stage]]:
    monkeypatch.setattr(module, "LOOK_EVERY_S", 0.05)
    stages: list[Stage] = []

    def make(mode: str = "ok", grace_s: float = 5.0) -> Stage:
        stages.append(Stage(tmp_path, mode, grace_s))
        return stages[-1]

    yield make
    for made in stages:
        made.signals.count += 2
        made.thread.join(30)
        assert made.leftovers() == []


def test_stopping_drains_and_leaves_nothing(stage: Callable[..., Stage]) -> None:
    running = stage()
    running.until_ready(1)
    stubs = set(running.servers[0].stubs().values())
    assert len(stubs) == 3
    assert len(list(SHARED_MEMORY.glob(f"{running.prefixes[0]}*"))) == 1
    running.stop()
    assert running.exit_code == 0
    assert still_alive(stubs) == set()
    assert any("waiting for 2 requests" in line for line in running.said)
    assert "all requests have finished" in running.said


def test_requests_that_do_not_end_are_ended_after_the_grace_period(stage: Callable[..., Stage]) -> None:
    running = stage("stuck", grace_s=0.5)
    running.until_ready(1)
    begun = time.monotonic()
    running.stop()
    assert time.monotonic() - begun >= 0.5
    assert running.exit_code == 0
    assert "ending the requests that are left" in running.said


def test_a_second_signal_stops_at_once(stage: Callable[..., Stage]) -> None:
    running = stage("stuck", grace_s=600.0)
    running.until_ready(1)
    running.signals.count = 1
    running.until(lambda: any("waiting for" in line for line in running.said), "the drain")
    running.signals.count = 2
    running.thread.join(10)
    assert running.exit_code == 0
    assert "stopping at once" in running.said


@pytest.mark.parametrize("model", ["scheduler", "unary"])
def test_a_killed_stub_is_noticed_and_the_server_comes_back(stage: Callable[..., Stage], model: str) -> None:
    running = stage()
    running.until_ready(1)
    # Stubs are counted when the watch begins, a moment after the server is ready.
    running.until(lambda: len(running.servers[0].stubs()) == 3, "the stubs")
    time.sleep(0.2)
    os.kill(running.servers[0].stubs()[f"{model}_0_0"], signal.SIGKILL)
    running.until_ready(2)
    assert f"the Python process of {model} died" in running.said
    assert len(running.servers) == 2


def test_a_killed_tokenizer_is_loaded_again_while_the_others_run(stage: Callable[..., Stage]) -> None:
    running = stage()
    running.until_ready(1)
    stubs = running.servers[0].stubs()
    time.sleep(0.2)
    os.kill(stubs["preprocessing_0_0"], signal.SIGKILL)
    running.until(lambda: any("ready again after" in line for line in running.said), "the new process")
    assert len(running.servers) == 1
    now = running.servers[0].stubs()
    assert now.pop("preprocessing_0_0") != stubs.pop("preprocessing_0_0")
    assert now == stubs


def test_a_model_that_cannot_be_loaded_again_means_a_restart(stage: Callable[..., Stage]) -> None:
    running = stage("noload")
    running.until_ready(1)
    time.sleep(0.2)
    os.kill(running.servers[0].stubs()["preprocessing_0_0"], signal.SIGKILL)
    running.until_ready(2)
    assert any("cannot be loaded again" in line for line in running.said)
    assert len(running.servers) == 2


def test_a_killed_server_comes_back(stage: Callable[..., Stage]) -> None:
    running = stage()
    running.until_ready(1)
    os.kill(running.servers[0].pid, signal.SIGKILL)
    running.until_ready(2)
    assert "tritonserver ended (killed by SIGKILL)" in running.said


@pytest.mark.parametrize(("mode", "silent"), [("mute", "ensemble, preprocessing, unary"), ("hung", "tensorrt_llm")])
def test_a_server_that_stops_answering_is_restarted(stage: Callable[..., Stage], mode: str, silent: str) -> None:
    running = stage()
    running.until_ready(1)
    time.sleep(0.3)  # the watch begins
    running.control.write_text(mode)
    running.until(lambda: f"no answer from {silent} 2 times in a row" in running.said, "the verdict")
    running.control.write_text("ok")
    running.until_ready(2)


def test_a_server_that_is_merely_busy_is_left_alone(stage: Callable[..., Stage]) -> None:
    running = stage()
    running.until_ready(1)
    time.sleep(0.3)  # the watch begins
    running.control.write_text("busy")
    time.sleep(5.0)  # four probes that the engine does not answer
    assert [line for line in running.said if "no answer" in line] == []
    assert len(running.servers) == 1


def test_a_server_that_cannot_start_is_given_up_with_the_log(stage: Callable[..., Stage]) -> None:
    running = stage("exit")
    running.thread.join(20)
    assert running.exit_code == 1
    assert len(running.servers) == 1
    assert "exit code 3" in running.said[-1]
    assert "failed to load 'scheduler'" in running.said[-1]


def test_a_stub_that_dies_while_the_first_answer_is_awaited_ends_the_start(stage: Callable[..., Stage]) -> None:
    running = stage("starting")
    running.until(lambda: any("not ready yet" in line for line in running.said), "the first refusal")
    os.kill(running.servers[0].stubs()["unary_0_0"], signal.SIGKILL)
    running.thread.join(20)
    assert running.exit_code == 1
    assert "the Python process of unary died while starting" in running.said[-1]


def test_a_crash_loop_is_given_up(stage: Callable[..., Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf_tools.serve.watch._DELAYS_S", (0.0,) * 10)
    running = stage()
    running.until_ready(1)
    running.control.write_text("exit")
    os.kill(running.servers[0].pid, signal.SIGKILL)
    running.thread.join(30)
    assert running.exit_code == 1
    assert running.said[-1].startswith("giving up")
    assert len(running.servers) == 11


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
