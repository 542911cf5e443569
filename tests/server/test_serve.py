"""`scripts/serve` itself, with the real tritonserver and the real models: start, answer, survive, stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ssjf_client import Client, ClientError, Door
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve import processes
from tests.server.asking import wait_for

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]

START_S = 150.0  # a start takes about 10 s; this bound is for machines that are busy with something else
BACK_S = 30.0  # the promise of the CPU profile, on a machine that starts it within USUAL_START_S
USUAL_START_S = 20.0
NOTICED_S = 18.0  # a hang is noticed within this time, see CPU_PATIENCE
TOKEN = "of-the-tests"
STUBS = ("preprocessing", "length_predictor", "scheduler", "tensorrt_llm", "unary")


class Serve:
    """A running `scripts/serve` on ports of its own."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.grpc, http, metrics = _free_ports(3)
        self.url = f"127.0.0.1:{self.grpc}"
        self.start_s = 0.0
        self._output = folder / f"serve-{self.grpc}.out"
        ports = [f"--grpc-port={self.grpc}", f"--http-port={http}", f"--metrics-port={metrics}"]
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [CHECKOUT / "scripts" / "serve", *ports, *arguments],
                stdout=output,
                stderr=output,
                env={**os.environ, "SSJF_PYTHON": sys.executable, "SSJF_CONTROL_TOKEN": TOKEN},
                start_new_session=True,
            )

    def said(self) -> str:
        return self._output.read_text()

    def until(self, condition: Callable[[], bool], seconds: float, what: str) -> float:
        """Waits for `condition`; returns the seconds that it took."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() - begun < seconds, f"no {what} within {seconds:g} s; serve said:\n{self.said()}"
            time.sleep(0.05)
        return time.monotonic() - begun

    def until_ready(self) -> None:
        self.start_s = self.until(
            lambda: "\nReady." in self.said() or self.process.poll() is not None, START_S, "start"
        )
        assert self.process.poll() is None, self.said()

    @property
    def back_s(self) -> float:
        """How long a restart may take here: on a machine busy with other things, as much longer as the start took."""
        return BACK_S * max(1.0, self.start_s / USUAL_START_S)

    def until_settled(self) -> None:
        """No restart is under way."""
        self.until(lambda: self._failures() == self.said().count("ready again"), START_S, "end of a restart")
        self.until(lambda: set(self.stubs()) == set(STUBS), START_S, "complete set of stubs")

    def _failures(self) -> int:
        return self.said().count(" died") + self.said().count("no answer from")

    def family(self) -> set[int]:
        """serve, its guard, tritonserver, the stubs and whatever these have started."""
        return processes.family(self.process.pid)

    def stubs(self) -> dict[str, int]:
        """Model to pid of its Python process."""
        servers = [p.pid for p in processes.all_processes() if p.parent == self.process.pid]
        found = {name: pid for server in servers for name, pid in processes.live_stubs(server).items()}
        return {name.rsplit("_", 2)[0]: pid for name, pid in found.items()}

    def segments(self) -> list[str]:
        return [path.name for path in processes.SHARED_MEMORY.glob(f"ssjf-cpu-{self.grpc}-*")]

    def ask(self, door: Door = "ensemble", text: str = "Say hi.", max_tokens: int = 4) -> str:
        with Client(self.url, door=door, timeout_s=60) as client:
            return client.generate(text, max_tokens=max_tokens).text

    def end(self) -> None:
        """For teardown: whatever the test has left."""
        for pid in self.family() if self.process.poll() is None else ():
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        processes.remove_shared_memory(f"ssjf-cpu-{self.grpc}-")


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    running = Serve(tmp_path_factory.mktemp("serve"), "--grace=60")
    try:
        running.until_ready()
        yield running
    finally:
        running.end()


@pytest.mark.parametrize("door", ["ensemble", "scheduler", "unary"])
def test_every_door_answers(serve: Serve, door: Door) -> None:
    assert serve.ask(door).strip()


def test_the_printed_queries_work_as_they_stand(serve: Serve) -> None:
    text = serve.said()
    command_line = _found(r"command line +(.*)", text)
    curl = _found(r"curl {5,}(.*)", text)
    python = _found(r"(?s)tritonclient +(\S+ - <<'PYTHON'\n.*?\nPYTHON)", text)
    path = f"{sys.prefix}/bin:{os.environ['PATH']}"
    for query, part in ((command_line, ""), (curl, '"text_output"'), (python, "")):
        done = subprocess.run(
            ["bash", "-c", query],
            cwd=CHECKOUT,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{query}\n{done.stderr}"
        assert len(done.stdout.strip()) > 20
        assert part in done.stdout


@pytest.mark.parametrize("model", STUBS)
def test_a_killed_stub_is_replaced_within_the_promised_time(serve: Serve, model: str) -> None:
    serve.until_settled()
    before = serve.said().count("ready again")
    os.kill(serve.stubs()[model], signal.SIGKILL)
    seconds = serve.until(lambda: serve.said().count("ready again") > before, serve.back_s, f"new {model}")
    print(f"{model}: ready again after {seconds:.1f} s")
    assert f"the Python process of {model} died" in serve.said()
    assert serve.ask().strip()


def test_a_model_that_hangs_is_noticed_and_replaced(serve: Serve) -> None:
    serve.until_settled()
    before = serve.said().count("ready again")
    processes.end_all({serve.stubs()["scheduler"]}, signal.SIGSTOP)
    bound = max(BACK_S, NOTICED_S + 1.5 * serve.start_s)
    seconds = serve.until(lambda: serve.said().count("ready again") > before, bound, "new scheduler")
    print(f"scheduler hanging: ready again after {seconds:.1f} s")
    assert "no answer from" in serve.said()
    assert serve.ask().strip()


def test_an_engine_process_that_hangs_is_replaced_without_a_restart(serve: Serve) -> None:
    serve.until_settled()
    said, stub = serve.said(), serve.stubs()["tensorrt_llm"]
    hanging = processes.family(stub) - {stub}
    assert hanging
    processes.end_all(hanging, signal.SIGSTOP)
    seconds = serve.until(lambda: bool(answer_or_none(serve)), serve.back_s, "answer")
    print(f"engine process hanging: answers again after {seconds:.1f} s")
    assert serve.said().count("ready again") == said.count("ready again")
    assert serve.stubs()["tensorrt_llm"] == stub


def answer_or_none(serve: Serve) -> str | None:
    try:
        return serve.ask("scheduler")
    except ClientError:
        return None


def test_sigterm_under_load_lets_requests_finish_and_leaves_nothing(serve: Serve) -> None:
    serve.until_settled()
    with ThreadPoolExecutor(9) as pool:
        asked = [pool.submit(serve.ask, "scheduler", "Tell me a story.", 60) for _ in range(8)]
        with Client(serve.url) as client:
            wait_for(client, TOKEN, lambda status: status.live_requests == 8)
        family = serve.family()
        assert len(family) >= 2 + len(STUBS)
        serve.process.send_signal(signal.SIGTERM)
        serve.until(lambda: "stopping" in serve.said(), 10, "stop")
        time.sleep(0.5)
        with pytest.raises(ClientError):
            serve.ask("scheduler")
        answers = [future.result() for future in asked]
    assert all(answer.strip() for answer in answers)
    serve.process.wait(timeout=90)
    assert serve.process.returncode == 0
    assert "all requests have finished" in serve.said()
    assert processes.still_alive(family) == set()
    assert serve.segments() == []


def test_after_sigkill_of_serve_nothing_stays(tmp_path: Path) -> None:
    running = Serve(tmp_path)
    try:
        running.until_ready()
        family = running.family()
        assert len(running.segments()) >= len(STUBS)
        running.process.kill()
        running.process.wait()
        running.until(lambda: not processes.still_alive(family), 30, "end of all processes")
        running.until(lambda: not running.segments(), 5, "end of the shared memory")
    finally:
        running.end()


def test_a_taken_port_is_an_error_that_names_the_option() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        port = holder.getsockname()[1]
        done = subprocess.run(
            [CHECKOUT / "scripts" / "serve", f"--grpc-port={port}"], capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert f"port {port}" in done.stderr
    assert "--grpc-port" in done.stderr


def test_a_setting_that_the_models_refuse_ends_the_start_with_the_reason(tmp_path: Path) -> None:
    running = Serve(tmp_path, "--policy=longest-first")
    try:
        assert running.process.wait(timeout=START_S) == 1
        assert "longest-first" in running.said()
        assert running.segments() == []
    finally:
        running.end()


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match is not None, f"{pattern} is not in:\n{text}"
    return match.group(1)


def _free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
