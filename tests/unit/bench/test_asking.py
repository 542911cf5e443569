"""Open and closed loops against an engine made of sleep."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from ssjf_tools.bench.live.asking import Asker, Question, run_plan
from ssjf_tools.bench.live.first_pass import first_pass
from ssjf_tools.bench.live.plan import Plan
from ssjf_tools.bench.streams import Timeline

QUESTIONS = [Question(f"q{at}", 10, np.zeros((1, 5 + at), np.int32)) for at in range(4)]


class SleepingAsker(Asker):
    """Answers each question with its number of tokens after 20 ms; counts who asks at once."""

    def __init__(self, fails: tuple[str, ...] = ()):
        self.told: list[int | None] = []
        self.open = self.most = 0
        self._fails = fails

    async def ask(self, arm: str, question: Question, expected_tokens: int | None) -> Timeline:
        self.told.append(expected_tokens)
        self.open += 1
        self.most = max(self.most, self.open)
        sent = time.perf_counter()
        await asyncio.sleep(0.02)
        self.open -= 1
        if question.text in self._fails:
            raise RuntimeError("queue full")
        last: dict[str, Any] = {"queue_time_us": np.array([[5000]]), "predicted_tokens": np.array([[9]])}
        return Timeline(sent, sent + 0.01, sent + 0.02, int(question.text[1:]) + 1, 2, 1, 0.01, [{}, last])


def run(asker: Asker, plan: Plan, truth: list[int] | None = None, concurrency: int = 1) -> Any:
    return asyncio.run(run_plan(asker, "fcfs", QUESTIONS, plan, truth, concurrency, lambda: None))


def test_open_loop_sends_when_due_and_measures_from_then() -> None:
    asker = SleepingAsker()
    found = run(asker, Plan(np.array([3, 1, 1]), np.array([0.0, 0.03, 0.05])), truth=[1, 2, 3, 4])
    assert found.arrival_s == pytest.approx([0.0, 0.03, 0.05], abs=1e-6)
    assert (found.end_s >= found.arrival_s + 0.019).all()
    assert found.output_tokens.tolist() == [4, 2, 2]
    assert found.prompt_tokens.tolist() == [8, 6, 6]
    assert found.predicted_tokens.tolist() == [9, 9, 9]
    assert found.queue_s == pytest.approx(0.005)
    assert asker.told == [4, 2, 2]


def test_closed_loop_keeps_as_many_open_as_clients() -> None:
    asker = SleepingAsker()
    found = run(asker, Plan(np.array([0, 1, 2, 3, 0, 1, 2]), None), concurrency=3)
    assert asker.most == 3
    assert found.ok.all()


def test_failed_requests_are_noted_and_the_rest_goes_on() -> None:
    found = run(SleepingAsker(fails=("q1",)), Plan(np.array([0, 1, 2]), np.zeros(3)))
    assert found.ok.tolist() == [True, False, True]


def test_an_answer_without_a_token() -> None:
    class Silent(SleepingAsker):
        async def ask(self, arm: str, question: Question, expected_tokens: int | None) -> Timeline:
            sent = time.perf_counter()
            return Timeline(sent, last=sent + 0.5)

    found = run(Silent(), Plan(np.array([0]), np.zeros(1)))
    assert found.output_tokens.tolist() == [0]
    assert found.first_s == pytest.approx(found.end_s)


def test_nothing_answered_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="every request failed; the last with: queue full"):
        run(SleepingAsker(fails=("q1",)), Plan(np.array([1, 1]), np.zeros(2)))


def test_first_pass_learns_every_length() -> None:
    found = asyncio.run(first_pass(SleepingAsker(), QUESTIONS, 2, 0, lambda: None))
    assert found.answered == [0, 1, 2, 3]
    assert found.truth == [1, 2, 3, 4]
    assert found.capacity.mean_tokens == 2.5


def test_first_pass_leaves_out_what_the_server_refuses() -> None:
    found = asyncio.run(first_pass(SleepingAsker(fails=("q2",)), QUESTIONS, 2, 0, lambda: None))
    assert found.answered == [0, 1, 3]
    assert found.truth == [1, 2, 4]
    assert found.capacity.requests_per_s * found.capacity.mean_tokens == pytest.approx(found.capacity.tokens_per_s)


def test_first_pass_needs_some_answer() -> None:
    with pytest.raises(RuntimeError, match="every request failed"):
        asyncio.run(first_pass(SleepingAsker(fails=("q0", "q1", "q2", "q3")), QUESTIONS, 2, 0, lambda: None))
