from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openvino_llm.errors import InvalidInput
from openvino_llm.ledger import Ledger, Outgoing
from openvino_llm.messages import Delta
from openvino_llm.request import EngineRequest
from tests.unit.openvino_llm.fakes import generation


def request(rows: int = 1, streaming: bool = True, echo: bool = False, log_probs: bool = False) -> EngineRequest:
    return EngineRequest("id", tuple(generation(log_probs=log_probs) for _ in range(rows)), streaming, echo)


def delta(key: int, *tokens: int, finished: bool = False) -> Delta:
    return Delta(key, tokens, tuple(-0.5 for _ in tokens), finished)


def ids(answers: list[Outgoing[str]]) -> list[tuple[int, ...]]:
    return [answer.chunk.output_ids for answer in answers if answer.chunk is not None]


def test_deltas_between_two_flushes_become_one_response() -> None:
    ledger: Ledger[str] = Ledger()
    (start,) = ledger.open("c", request())
    ledger.apply(delta(start.key, 5))
    ledger.apply(delta(start.key, 6, 7))
    assert ids(ledger.flush()) == [(5, 6, 7)]
    assert ledger.flush() == []
    ledger.apply(delta(start.key, finished=True))
    (last,) = ledger.flush()
    assert (last.final, ledger.clients) == (True, [])


def test_without_streaming_there_is_one_answer() -> None:
    ledger: Ledger[str] = Ledger()
    (start,) = ledger.open("c", request(streaming=False))
    ledger.apply(delta(start.key, 5))
    assert ledger.flush() == []
    ledger.apply(delta(start.key, 6, finished=True))
    (answer,) = ledger.flush()
    assert (ids([answer]), answer.final) == ([(5, 6)], True)


def test_the_prompt_is_echoed_only_without_streaming() -> None:
    for streaming, expected in ((False, (7, 7, 7, 5)), (True, (5,))):
        ledger: Ledger[str] = Ledger()
        (start,) = ledger.open("c", request(streaming=streaming, echo=True))
        ledger.apply(delta(start.key, 5, finished=True))
        (answer,) = ledger.flush()
        assert ids([answer]) == [expected]
        assert answer.chunk is not None
        assert answer.chunk.num_output_tokens == 1


def test_rows_finish_on_their_own_and_the_last_one_is_final() -> None:
    ledger: Ledger[str] = Ledger()
    first, second = ledger.open("c", request(rows=2))
    ledger.apply(delta(second.key, 5, finished=True))
    ledger.apply(delta(first.key, 6))
    answers = ledger.flush()
    assert [answer.chunk.batch_index for answer in answers if answer.chunk] == [1, 0]
    assert [answer.final for answer in answers] == [False, False]
    ledger.apply(delta(first.key, finished=True))
    assert [answer.final for answer in ledger.flush()] == [True]


def test_log_probs_come_when_asked_for_and_accumulate() -> None:
    ledger: Ledger[str] = Ledger()
    (start,) = ledger.open("c", request(log_probs=True))
    sums = []
    for _ in range(3):
        ledger.apply(delta(start.key, 5))
        (answer,) = ledger.flush()
        assert answer.chunk is not None
        sums.append(answer.chunk.cum_log_prob)
        assert answer.chunk.tensors()["output_log_probs"].shape == (1, 1, 1)
    assert sums == [-0.5, -1.0, -1.5]


def test_log_prob_tensors_are_absent_when_not_asked_for() -> None:
    ledger: Ledger[str] = Ledger()
    (start,) = ledger.open("c", request())
    ledger.apply(delta(start.key, 5))
    (answer,) = ledger.flush()
    assert answer.chunk is not None
    arrays = answer.chunk.tensors()
    assert "cum_log_probs" not in arrays
    assert arrays["output_ids"].tolist() == [[[5]]]


def test_a_live_id_is_refused_and_free_again_afterwards() -> None:
    ledger: Ledger[str] = Ledger()
    (start,) = ledger.open("a", request())
    with pytest.raises(InvalidInput, match="'id'"):
        ledger.open("b", request())
    ledger.apply(delta(start.key, finished=True))
    ledger.flush()
    ledger.open("b", request())
    assert ledger.client_of("id") == "b"


def test_ending_a_request_sends_what_is_there() -> None:
    ledger: Ledger[str] = Ledger()
    starts = ledger.open("c", request(rows=2, streaming=False))
    ledger.apply(delta(starts[0].key, 5))
    keys, answers = ledger.end("c")
    assert keys == [start.key for start in starts]
    assert ids(answers) == [(5,), ()]
    assert [answer.final for answer in answers] == [False, True]
    assert ledger.apply(delta(starts[0].key, 6)) is None
    assert ledger.flush() == []


def test_a_failed_row_fails_its_request() -> None:
    ledger: Ledger[str] = Ledger()
    first, second = ledger.open("c", request(rows=2))
    failed = ledger.apply(Delta(second.key, finished=True, error="refused"))
    assert failed == Outgoing("c", None, final=True, error="refused")
    assert (ledger.apply(delta(first.key, 5)), ledger.flush(), ledger.clients) == (None, [], [])


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.booleans()), max_size=40), st.booleans())
def test_nothing_is_lost_or_doubled(events: list[tuple[int, int, bool]], streaming: bool) -> None:
    ledger: Ledger[str] = Ledger()
    starts = ledger.open("c", request(rows=2, streaming=streaming))
    sent: dict[int, list[int]] = {0: [], 1: []}
    expected: dict[int, list[int]] = {0: [], 1: []}
    finals = 0

    def collect() -> None:
        nonlocal finals
        for answer in ledger.flush():
            assert answer.chunk is not None
            sent[answer.chunk.batch_index] += answer.chunk.output_ids
            finals += answer.final

    for row, count, flush in events:
        new = list(range(len(expected[row]), len(expected[row]) + count))
        expected[row] += new
        ledger.apply(delta(starts[row].key, *new))
        if flush:
            collect()
    for start in starts:
        ledger.apply(delta(start.key, finished=True))
    collect()
    assert (sent, finals, ledger.clients) == (expected, 1, [])
