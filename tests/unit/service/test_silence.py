"""An engine of which nothing is heard: when that means that it hangs, and what its jobs hold meanwhile."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ssjf.core.settings import CoreSettings
from ssjf.service.settings import ServiceSettings
from tests.unit.service.harness import Bench, run

TRUE = np.array([[True]])
STALL_S = 0.05
SETTINGS = ServiceSettings(cancel_poll_s=0.005, engine_stall_s=STALL_S)


@pytest.fixture(autouse=True)
def quick_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.service.dispatcher._WATCH_PERIOD_S", 0.01)


def test_an_answer_that_comes_as_a_whole_may_take_its_time() -> None:
    """Nothing is heard of it before its end, however well the engine is; a streamed one beside it is given up."""

    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        whole, streamed = bench.send("whole"), bench.send("streamed", stream=TRUE)
        await bench.ended(streamed)
        assert streamed.ends == [f"EngineFailed: the engine sent nothing for {STALL_S:g} s"]
        await asyncio.sleep(4 * STALL_S)
        assert whole.ends == []
        bench.engine.gate.set()
        await bench.ended(whole)
        assert whole.text == "whole"

    run(scenario, settings=SETTINGS)


def test_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.service.dispatcher._SLOW_PACE_S", 0.001)

    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        client = bench.send("whole", max_tokens=np.array([[100]], np.int32))
        await bench.ended(client)
        assert client.ends == ["EngineFailed: the engine sent nothing for 0.25 s"]  # the stall and twice 100 tokens

    run(scenario, settings=SETTINGS)


def test_an_unheard_answer_grows_in_the_token_budget_at_the_usual_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf.core.scheduler.Scheduler.pace_s", lambda _self: 0.01)

    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        client = bench.send("12345", max_tokens=np.array([[1000]], np.int32))  # five tokens predicted
        await bench.until(lambda: bench.service.snapshot().tokens_in_flight > 5 + 2 * 5)
        bench.engine.gate.set()
        await bench.ended(client)
        await bench.until(lambda: bench.service.snapshot().tokens_in_flight == 0)

    run(scenario, CoreSettings(max_inflight=2, max_inflight_tokens=10_000), SETTINGS)


def test_time_to_first_token_is_that_of_streamed_answers_alone() -> None:
    async def scenario(bench: Bench) -> None:
        whole, streamed = bench.send("whole"), bench.send("streamed", stream=TRUE)
        await bench.ended(whole, streamed)
        await bench.until(lambda: len(bench.records) == 2)
        assert {record.output_tokens: record.ttft_s is None for record in bench.records} == {5: True, 8: False}

    run(scenario, settings=SETTINGS)
