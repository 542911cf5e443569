"""A scheduler with two engine servers: one that was never there, one whose engine process is killed."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import TIMEOUT_S, Answer, ask, tensors

INSTANT_ENGINE = {"tensorrt_llm": CHECKOUT / "scripts" / "ssjf_tools" / "bench" / "instant_llm"}
NOBODY = "127.0.0.1:1"
STREAM = {"stream": np.array([[True]])}
# The client gets one answer at the end; the scheduler has its engine stream, because of the stop word.
WHOLE = {"stop_words": np.array([[b"never"]], dtype=np.object_)}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
# The engine makes a token every 20 ms; silence of 3 s is as good as death.
PACE = {"SSJF_STEP_S": "0.02", "SSJF_MAX_INFLIGHT": "8", "SSJF_ENGINE_STALL_S": "3", "SSJF_ENGINE_WAIT_S": "10"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine() -> Iterator[Throwaway]:
    with throwaway_server(PACE, INSTANT_ENGINE) as running:
        yield running


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal") / "requests.jsonl"


@pytest.fixture(scope="module")
def scheduler(engine: Throwaway, journal: Path) -> Iterator[Throwaway]:
    """Its engines are another server's, and an address where nobody listens."""
    settings = {"SSJF_ENGINE_URL": f"{engine.grpc_url},{NOBODY}", "SSJF_JOURNAL_PATH": str(journal)}
    with throwaway_server(PACE | settings, INSTANT_ENGINE) as running:
        yield running


def status(server: Throwaway) -> dict[str, Any]:
    text = ask(server.grpc_url, "scheduler", tensors("x", 1), control="status", control_token=server.token).text
    state: dict[str, Any] = json.loads(text)
    return state


def test_answers_come_from_the_engine_that_is_there(scheduler: Throwaway, journal: Path) -> None:
    def one(number: int) -> Answer:
        return ask(scheduler.grpc_url, "scheduler", tensors("hello", 20), request_id=f"r{number}", traceparent=TRACE)

    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(one, range(12)))
    assert [(answer.error, answer.finals) for answer in answers] == [(None, 1)] * 12
    there, nobody = status(scheduler)["engines"]
    assert (there["state"], nobody["state"]) == ("up", "out")
    assert "failed to connect" in nobody["last_failure"]
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert {line["request_id"] for line in lines} == {f"r{number}" for number in range(12)}
    assert {(line["outcome"], line["finish"], line["output_tokens"], line["trace"]) for line in lines} == {
        ("finished", "length", 20, TRACE)
    }


def test_requests_past_the_scheduler_are_counted(engine: Throwaway, scheduler: Throwaway) -> None:
    """The engine's server has a scheduler of its own, and that one sends some, too."""
    for _ in range(3):
        assert ask(engine.grpc_url, "scheduler", tensors("hello", 2)).error is None
    deadline = time.monotonic() + TIMEOUT_S
    while status(scheduler)["engines"][0]["foreign_requests"] < 3 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert [entry["foreign_requests"] for entry in status(scheduler)["engines"]] == [3, 0]


def test_every_request_ends_when_the_last_engine_process_is_killed(engine: Throwaway, scheduler: Throwaway) -> None:
    def streamed(heard: threading.Event) -> Answer:
        return ask(scheduler.grpc_url, "scheduler", tensors("x", 500, **STREAM), heard=heard)

    both = [threading.Event(), threading.Event()]
    with ThreadPoolExecutor(8) as clients:
        seen = [clients.submit(streamed, heard) for heard in both]
        assert all(heard.wait(TIMEOUT_S) for heard in both)
        unseen = [clients.submit(ask, scheduler.grpc_url, "scheduler", tensors("x", 500, **WHOLE)) for _ in range(4)]
        deadline = time.monotonic() + TIMEOUT_S
        # The slots are shared out evenly, so the one engine that is there has four of the eight.
        while status(scheduler)["in_flight"] < 4 and time.monotonic() < deadline:
            time.sleep(0.05)
        for name, pid in engine.server.stubs().items():
            if name.startswith("tensorrt_llm"):
                os.kill(pid, signal.SIGKILL)
        ends = [future.result(timeout=TIMEOUT_S) for future in (*seen, *unseen)]
    errors = [answer.error or "" for answer in ends]
    assert errors[:2] == ["the engine sent nothing for 3 s"] * 2
    assert [error for error in errors[2:] if "is not healthy" not in error and "could be reached" not in error] == []
    assert all(answer.finals <= 1 for answer in ends)
    state = status(scheduler)
    assert (state["live_requests"], state["in_flight"], state["queue_length"], state["engines_up"]) == (0, 0, 0, 0)
    with urllib.request.urlopen(scheduler.metrics_url, timeout=10) as metrics:
        text = metrics.read().decode()
    assert f'ssjf_engine_up{{endpoint="{NOBODY}"}} 0' in text
    assert 'ssjf_journal_dropped_total{reason="write"} 0' in text
