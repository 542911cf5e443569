from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from multiprocessing import Pipe

import pytest

from openvino_llm.desk import Desk, Reject, Stop, Submit
from openvino_llm.errors import InvalidInput
from openvino_llm.messages import Cancel, Delta, Progress, Start
from openvino_llm.request import EngineRequest
from openvino_llm.supervisor import Down, Up
from tests.unit.openvino_llm.fakes import FakeClient, generation


class Harness:
    """A desk whose inference process is the other end of a pipe."""

    def __init__(self) -> None:
        self.desk = Desk(cancel_poll_s=0.01)
        self.ours, self.process = Pipe()
        self.desk.start()
        self.desk.post(Up(self.ours))

    def submit(self, client: FakeClient, request_id: str = "", rows: int = 1) -> None:
        self.desk.post(Submit(client, EngineRequest(request_id, (generation(),) * rows, True, False)))

    def heard(self) -> Start | Cancel:
        assert self.process.poll(5), "the inference process was told nothing"
        message = self.process.recv()
        assert isinstance(message, Start | Cancel)
        return message

    def started(self) -> int:
        message = self.heard()
        assert isinstance(message, Start)
        return message.key

    def progress(self, *deltas: Delta) -> None:
        self.desk.post(Progress(deltas))


@pytest.fixture
def harness() -> Iterator[Harness]:
    found = Harness()
    yield found
    found.desk.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline, "did not happen in 5 s"
        time.sleep(0.002)


def test_tokens_reach_their_client(harness: Harness) -> None:
    first, second = FakeClient(), FakeClient()
    harness.submit(first)
    harness.submit(second)
    keys = harness.started(), harness.started()
    harness.progress(Delta(keys[0], (5,)), Delta(keys[1], (8,)))
    harness.progress(Delta(keys[0], (6,), finished=True), Delta(keys[1], (9,), finished=True))
    until(lambda: bool(first.ends and second.ends))
    assert (first.tokens, second.tokens) == ([5, 6], [8, 9])
    assert first.ends == second.ends == ["final"]


def test_a_client_that_went_away_frees_its_rows(harness: Harness) -> None:
    client = FakeClient(gone=True)
    harness.submit(client, rows=2)
    keys = (harness.started(), harness.started())
    assert harness.heard() == Cancel(keys)
    until(lambda: client.ends == ["empty"])


def test_stop_ends_the_request_of_that_id_and_answers_both(harness: Harness) -> None:
    client, stopper, late = FakeClient(), FakeClient(), FakeClient()
    harness.submit(client, "id")
    key = harness.started()
    harness.progress(Delta(key, (5,)))
    harness.desk.post(Stop(stopper, "id"))
    assert harness.heard() == Cancel((key,))
    until(lambda: bool(stopper.ends))
    assert (client.tokens, client.ends, stopper.ends) == ([5], ["final"], ["empty"])
    harness.desk.post(Stop(late, "id"))  # it is over: no error
    until(lambda: late.ends == ["empty"])


def test_a_duplicate_id_and_a_rejected_request_get_their_errors(harness: Harness) -> None:
    client, again, faulty = FakeClient(), FakeClient(), FakeClient()
    harness.submit(client, "id")
    harness.submit(again, "id")
    harness.desk.post(Reject(faulty, InvalidInput("top_k", -1, "at least 0")))
    until(lambda: bool(again.ends and faulty.ends))
    assert "'id'" in again.ends[0]
    assert faulty.ends == ["InvalidInput: top_k is -1, expected at least 0"]
    assert client.ends == []


def test_a_dead_process_fails_what_is_open_and_the_next_one_serves(harness: Harness) -> None:
    lost, refused, served = FakeClient(), FakeClient(), FakeClient()
    harness.submit(lost)
    harness.started()
    harness.desk.post(Down("killed"))
    harness.submit(refused)
    until(lambda: bool(lost.ends and refused.ends))
    assert lost.ends[0].startswith("EngineUnavailable: the inference process is not at ready state")
    assert lost.ends[0].endswith("(killed)")
    assert refused.ends[0].startswith("EngineUnavailable")
    harness.desk.post(Up(harness.ours))
    harness.submit(served)
    harness.progress(Delta(harness.started(), (5,), finished=True))
    until(lambda: served.ends == ["final"])


def test_a_broken_pipe_waits_for_the_supervisors_word(harness: Harness) -> None:
    client = FakeClient()
    harness.process.close()
    harness.submit(client)
    harness.desk.post(Down("gone"))
    until(lambda: bool(client.ends))
    assert "gone" in client.ends[0]


def test_a_client_that_cannot_be_answered_is_ended_and_stops_nobody(harness: Harness) -> None:
    broken, fine = FakeClient(broken=True), FakeClient()
    harness.submit(broken)
    harness.submit(fine)
    keys = (harness.started(), harness.started())
    harness.progress(Delta(keys[0], (5,)), Delta(keys[1], (6,), finished=True))
    assert harness.heard() == Cancel((keys[0],))
    until(lambda: bool(fine.ends))
    assert (broken.ends, fine.tokens) == (["empty"], [6])


def test_tokens_merge_while_sends_are_slow(harness: Harness) -> None:
    class Slow(FakeClient):
        def send(self, chunk: object, final: bool) -> None:
            time.sleep(0.05)
            super().send(chunk, final)  # type: ignore[arg-type]

    client = Slow()
    harness.submit(client)
    key = harness.started()
    for token in range(100):
        harness.progress(Delta(key, (token,), finished=token == 99))
    until(lambda: client.ends == ["final"])
    assert client.tokens == list(range(100))
    assert len(client.chunks) < 50


def test_closing_answers_everything() -> None:
    harness, client = Harness(), FakeClient()
    harness.submit(client)
    harness.started()
    harness.desk.close()
    assert client.ends == ["EngineUnavailable: the engine is shutting down"]
