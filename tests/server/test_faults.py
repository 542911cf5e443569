"""Processes that die or hang: every request still ends, and those that are not concerned don't notice."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ssjf_client import Client
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import TIMEOUT_S, Answer, ask, tensors, wait_for

SLOW_PREDICTOR = Path(__file__).parent / "slow_predictor"
STREAM = {"stream": np.array([[True]])}


@pytest.fixture
def broken() -> Iterator[Throwaway]:
    """A server of one's own, to break."""
    with throwaway_server({"SSJF_MAX_INFLIGHT": "2", "SSJF_PREDICTOR_TIMEOUT_S": "0.4"}) as running:
        yield running


def stub(server: Throwaway, model: str) -> int:
    """Process id of a model's only Python stub."""
    (pid,) = (pid for name, pid in server.server.stubs().items() if name.startswith(model))
    return pid


def predictions(server: Throwaway, source: str) -> float:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        lines = response.read().decode().splitlines()
    found = [line for line in lines if line.startswith("ssjf_predictions_total") and f'source="{source}"' in line]
    return float(found[0].rsplit(" ", 1)[1]) if found else 0.0


class Running:
    """A long streamed request on a thread of its own."""

    def __init__(self, server: Throwaway):
        self.answer = Answer()

        def run() -> None:
            self.answer = ask(server.grpc_url, "scheduler", tensors("Tell a story.", 60, **STREAM))

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def join(self) -> Answer:
        self._thread.join(60)
        return self.answer


def test_a_dead_predictor_leaves_the_scheduler_ordering_by_recent_lengths(broken: Throwaway) -> None:
    with Client(broken.grpc_url) as client:
        assert client.generate("Say hello.", max_tokens=4).text
        running = Running(broken)
        wait_for(client, broken.token, lambda status: status.in_flight == 1)
        os.kill(stub(broken, "length_predictor"), signal.SIGKILL)
        begun = time.monotonic()
        assert client.generate("Say hello.", max_tokens=4).text
        print(f"answered {time.monotonic() - begun:.2f} s after the predictor died")
        for _ in range(8):  # after a row of failures the proxy is not asked any more, so these don't wait for it
            assert client.generate("Say hello.", max_tokens=2).text
        assert running.join().error is None
        assert len(running.answer.texts) > 1
        deadline = time.monotonic() + TIMEOUT_S
        while predictions(broken, "prior") < 9 and time.monotonic() < deadline:  # published once a second
            time.sleep(0.2)
        assert predictions(broken, "prior") >= 9


def test_a_slow_predictor_costs_its_time_budget_and_is_asked_again(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    environment = {"SSJF_PREDICTOR_TIMEOUT_S": "0.4", "SSJF_TEST_SLOW_FLAG": str(slow)}
    with (
        throwaway_server(environment, {"length_predictor": SLOW_PREDICTOR}) as server,
        Client(server.grpc_url) as client,
    ):
        assert client.generate("Say hello.", max_tokens=2).predicted_tokens == 1  # what this predictor always says
        slow.touch()
        answer = client.generate("Say hello.", max_tokens=4)
        print(f"queued after {answer.queue_time_s:.2f} s")
        assert answer.predicted_tokens == 4  # the prior, within the request's limit
        slow.unlink()
        deadline = time.monotonic() + 20
        while client.generate("Say hello.", max_tokens=4).predicted_tokens != 1:
            assert time.monotonic() < deadline


def test_a_prediction_that_comes_late_orders_a_request_that_still_waits(tmp_path: Path) -> None:
    slow = tmp_path / "slow"
    slow.touch()
    environment = {"SSJF_PREDICTOR_TIMEOUT_S": "0.2", "SSJF_TEST_SLOW_FLAG": str(slow), "SSJF_MAX_INFLIGHT": "1"}
    with (
        throwaway_server(environment, {"length_predictor": SLOW_PREDICTOR}) as server,
        Client(server.grpc_url) as client,
        ThreadPoolExecutor(2) as threads,
    ):
        running = client.stream("Tell a story.", max_tokens=1000, min_tokens=1000, request_id="running")
        wait_for(client, server.token, lambda status: status.in_flight == 1)
        crowd = [threads.submit(ask, server.grpc_url, "scheduler", tensors("Hi.", 4)) for _ in range(2)]
        wait_for(client, server.token, lambda status: status.extra["repredicted"] == 2)
        assert client.status(server.token).queue_length == 2
        client.stop("running")
        running.close()
        # 1 is what this predictor always says; the prior would be cut at the request's limit, 4.
        assert [asked.result().outputs[0]["predicted_tokens"].item() for asked in crowd] == [1, 1]


def test_a_full_queue_before_the_scheduler_refuses_what_comes_on_top(tmp_path: Path) -> None:
    """The ensemble's own steps: Triton answers for them. The scheduler's own door goes on, with the prior."""
    slow = tmp_path / "slow"
    environment = {"SSJF_PREDICTOR_TIMEOUT_S": "0.4", "SSJF_TEST_SLOW_FLAG": str(slow)}
    with throwaway_server(environment, {"length_predictor": SLOW_PREDICTOR}) as server:
        slow.touch()
        with ThreadPoolExecutor(30) as threads:
            crowd = [threads.submit(ask, server.grpc_url, "ensemble", tensors("Hi.", 2)) for _ in range(29)]
            beside = ask(server.grpc_url, "scheduler", tensors("Hi.", 2))
            ends = [each.result() for each in crowd]
        slow.unlink()
        assert beside.error is None
        refused = [end.error for end in ends if end.error is not None]
        print(f"{len(refused)} of {len(ends)} refused: {refused[:1]}")
        assert refused
        assert all("Exceeds maximum queue size" in error for error in refused)
        assert len(ends) - len(refused) >= 8  # those that waited
        assert ask(server.grpc_url, "ensemble", tensors("Hi.", 2)).error is None


def test_an_engine_process_that_dies_fails_what_ran_and_comes_back(broken: Throwaway) -> None:
    with Client(broken.grpc_url) as client:
        running = Running(broken)
        wait_for(client, broken.token, lambda status: status.in_flight == 1)
        worker = children(stub(broken, "tensorrt_llm"))
        assert worker
        for pid in worker:
            os.kill(pid, signal.SIGKILL)
        answer = running.join()
        assert answer.error is not None
        wait_for(client, broken.token, lambda status: status.in_flight == 0 and status.queue_length == 0, timeout_s=60)
        deadline = time.monotonic() + 60
        while ask(broken.grpc_url, "scheduler", tensors("Say hello.", 3)).error is not None:
            assert time.monotonic() < deadline
            time.sleep(0.5)


def children(pid: int) -> list[int]:
    """Processes that `pid` started, from any of its threads."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted({int(child) for listed in lists for child in listed.read_text().split()})
