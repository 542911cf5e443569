"""Clients that go away, stop, or run out of time free their place at once."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from ssjf_client import Cancelled, Client, Status
from ssjf_tools.serve.throwaway import Throwaway
from tests.server.asking import TIMEOUT_S, Answer, ask, inputs, tensors, wait_for

LONG = "Write a long story about a dragon."
STREAM = {"stream": np.array([[True]])}
# Long enough that no request of these tests ends by itself.
MANY = {"min_tokens": np.array([[1000]], np.int32)}
FREED_WITHIN_S = 0.3
TRIES = 3
BACKGROUND = "background"


@pytest.fixture
def wait(server: Throwaway, client: Client) -> Iterator[Callable[[Callable[[Status], bool]], Status]]:
    """Wait for a state of the scheduler; afterwards nothing may be left in it."""
    yield lambda condition: wait_for(client, server.token, condition)
    client.stop(BACKGROUND)  # what a failed test may have left
    wait_for(client, server.token, lambda status: status.in_flight == 0 and status.queue_length == 0)


def in_flight(count: int) -> Callable[[Status], bool]:
    return lambda status: status.in_flight == count


def assert_freed_soon(took: Sequence[float]) -> None:
    """The median: one reading may fall on a busy moment of a shared machine."""
    print(f"slot freed after {', '.join(f'{seconds * 1e3:.0f}' for seconds in took)} ms")
    assert sorted(took)[len(took) // 2] < FREED_WITHIN_S


class Background:
    """A request on a thread of its own."""

    def __init__(self, server: Throwaway, door: str, **parameters: Any):
        self.answer: Answer | None = None

        def run() -> None:
            arrays = tensors(LONG, 1000, **STREAM, **MANY)
            self.answer = ask(server.grpc_url, door, arrays, BACKGROUND, **parameters)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def join(self) -> Answer:
        self._thread.join(TIMEOUT_S)
        assert self.answer is not None
        return self.answer


def test_leaving_the_iterator_frees_the_engine_slot(server: Throwaway, client: Client, wait: Any) -> None:
    took = []
    for _ in range(TRIES):
        with client.stream(LONG, max_tokens=1000, min_tokens=1000) as chunks:
            next(chunks)  # not next(iter(chunks)): dropping that iterator is leaving already
            wait(in_flight(1))
        begun = time.monotonic()
        wait(in_flight(0))
        took.append(time.monotonic() - begun)
    assert_freed_soon(took)


def test_a_cancelled_unary_call_frees_the_engine_slot(server: Throwaway, wait: Any) -> None:
    took = []
    with grpcclient.InferenceServerClient(server.grpc_url) as connection:
        for _ in range(TRIES):
            errors: list[Any] = []

            def note(result: Any, error: Any, to: list[Any] = errors) -> None:
                to.append(error)

            call = connection.async_infer("unary", inputs(tensors(LONG, 1000, **MANY)), callback=note)
            wait(in_flight(1))
            call.cancel()
            begun = time.monotonic()
            wait(in_flight(0))
            took.append(time.monotonic() - begun)
            wait(lambda _status, got=errors: bool(got))
            assert "cancelled" in str(errors[0]).lower()
    assert_freed_soon(took)


def test_the_engine_itself_is_free_again(server: Throwaway, client: Client, wait: Any) -> None:
    """Four cancelled requests must not go on decoding: a new one gets the engine's whole speed and its slots."""
    streams = [client.stream(LONG, max_tokens=1000, min_tokens=1000) for _ in range(4)]
    for stream in streams:
        next(iter(stream))
    for stream in streams:
        stream.close()
    wait(in_flight(0))
    assert client.generate("Say hello.", max_tokens=3).text


@contextmanager
def asked_at_scheduler(server: Throwaway) -> Iterator[Callable[[], None]]:
    """A request of four tokens; what the block is given makes its client leave."""
    with Client(server.grpc_url) as client, client.stream(LONG, max_tokens=4) as stream:

        def read() -> None:
            with suppress(Cancelled):  # what a reader on another thread gets when the stream is closed
                next(iter(stream), None)

        reader = threading.Thread(target=read)
        reader.start()
        yield stream.close
    reader.join(TIMEOUT_S)


@contextmanager
def asked_at_unary(server: Throwaway) -> Iterator[Callable[[], None]]:
    """The same as a plain `infer()`, whose client cancels the call."""
    with grpcclient.InferenceServerClient(server.grpc_url) as connection:
        call = connection.async_infer("unary", inputs(tensors(LONG, 4)), callback=lambda _result, _error: None)
        yield call.cancel


@pytest.mark.parametrize("asked", [asked_at_scheduler, asked_at_unary], ids=["scheduler", "unary"])
def test_a_waiting_request_whose_client_left_is_never_dispatched(
    server: Throwaway, client: Client, wait: Any, asked: Callable[[Throwaway], Any]
) -> None:
    blockers = [Background(server, "scheduler") for _ in range(4)]
    before = wait(in_flight(4)).extra["dispatched"]
    with asked(server) as leave:
        wait(lambda status: status.queue_length == 1)
        leave()
        wait(lambda status: status.queue_length == 0)
    client.stop(BACKGROUND)
    for blocker in blockers:
        assert blocker.join().error is None
    assert wait(in_flight(0)).extra["dispatched"] == before


@pytest.mark.parametrize("door", ["ensemble", "scheduler"])
def test_stop_with_the_same_id_ends_the_request_with_what_it_has(server: Throwaway, wait: Any, door: str) -> None:
    took = []
    for _ in range(TRIES):
        running = Background(server, door)
        wait(in_flight(1))
        begun = time.monotonic()
        stop = ask(server.grpc_url, door, tensors("stop", 1, stop=np.array([[True]])), BACKGROUND)
        wait(in_flight(0))
        took.append(time.monotonic() - begun)
        answer = running.join()
        assert (stop.error, stop.text) == (None, "")
        assert (answer.error, answer.finals) == (None, 1)
    assert_freed_soon(took)


def test_stop_needs_an_id(server: Throwaway) -> None:
    answer = ask(server.grpc_url, "ensemble", tensors("stop", 1, stop=np.array([[True]])))
    assert answer.error is not None
    assert "id" in answer.error


def test_a_deadline_ends_a_running_request(server: Throwaway, wait: Any) -> None:
    answer = Background(server, "ensemble", deadline_ms=700).join()
    assert answer.error is not None
    assert "deadline passed while it ran" in answer.error


def test_tritons_own_timeout_is_a_deadline_too(server: Throwaway, wait: Any) -> None:
    answer = Background(server, "scheduler", timeout_us=700_000).join()
    assert answer.error is not None
    assert "deadline" in answer.error


def test_a_client_that_is_killed_frees_its_slot(server: Throwaway, wait: Any) -> None:
    code = f"""
from ssjf_client import Client
for _ in Client({server.grpc_url!r}).stream({LONG!r}, max_tokens=1000, min_tokens=1000):
    pass
"""
    took = []
    for _ in range(TRIES):
        victim = subprocess.Popen([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)})
        wait(in_flight(1))
        begun = time.monotonic()
        victim.kill()
        victim.wait()
        wait(in_flight(0))
        took.append(time.monotonic() - begun)
    assert_freed_soon(took)
