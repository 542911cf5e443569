"""Deadlines with answers cut at them and without: `cancel_past_deadline`."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from ssjf.core.job import LengthPrediction
from ssjf.core.settings import CoreSettings
from ssjf.service.outcome import Outcome
from ssjf.service.settings import ServiceSettings
from tests.unit.service.harness import Bench, run

DEADLINE_MS = 100
KEEPS_ON = ServiceSettings(cancel_poll_s=0.005, cancel_past_deadline=False)


def test_a_running_answer_is_not_cut_where_deadlines_only_hold_for_the_start() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running = bench.send("running", parameters={"deadline_ms": DEADLINE_MS})
        await bench.until(lambda: bench.engine.started == ["running"])
        await asyncio.sleep(2 * DEADLINE_MS / 1e3)
        assert running.ends == []
        bench.engine.gate.set()
        await bench.ended(running)
        assert (running.text, running.ends) == ("running", ["final"])
        await bench.until(lambda: bool(bench.records))

    bench = run(scenario, CoreSettings(max_inflight=1), KEEPS_ON)
    assert [(row.outcome, row.jct_s > DEADLINE_MS / 1e3) for row in bench.records] == [(Outcome.FINISHED, True)]


def test_but_none_starts_late() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running = bench.send("running", parameters={"deadline_ms": DEADLINE_MS})
        await bench.until(lambda: bench.engine.started == ["running"])
        waiting = bench.send("waiting", parameters={"deadline_ms": DEADLINE_MS})
        await bench.ended(waiting)
        assert waiting.ends == ["DeadlineExceeded: no engine slot was free in time for its deadline"]
        bench.engine.gate.set()
        await bench.ended(running)
        assert running.ends == ["final"]
        assert bench.engine.started == ["running"]

    run(scenario, CoreSettings(max_inflight=1), KEEPS_ON)


@pytest.mark.parametrize("cancels", [True, False])
def test_who_can_start_in_time_but_not_end_is_refused_only_where_it_would_be_cut(
    monkeypatch: pytest.MonkeyPatch, cancels: bool
) -> None:
    monkeypatch.setattr("ssjf.core.forecast.Forecast.pace_s", lambda _self: 10.0)

    async def scenario(bench: Bench) -> None:
        running = await bench.occupied()
        asked = bench.send("12345", parameters={"deadline_ms": 20_000})  # five tokens are predicted, 50 s
        if cancels:
            await bench.ended(asked)
            assert len(asked.ends) == 1
            assert asked.ends[0].startswith("DeadlineExceeded: the deadline is in ")
            assert asked.ends[0].endswith(" and 50.00 s of answering are expected")
        bench.engine.gate.set()
        await bench.ended(running, asked)
        assert asked.text == ("" if cancels else "12345")

    settings = ServiceSettings(cancel_poll_s=0.005, cancel_past_deadline=cancels)
    run(scenario, CoreSettings(max_inflight=1), settings)


@pytest.mark.parametrize("too_long", [(2,), (2, 3)])
def test_rows_that_expire_take_nothing_but_their_own_call_along(
    monkeypatch: pytest.MonkeyPatch, too_long: tuple[int, ...]
) -> None:
    """One decision drops one row, or both, of a call and starts what else may start: its other row, another call."""
    monkeypatch.setattr("ssjf.core.forecast.Forecast.pace_s", lambda _self: 0.1)

    async def scenario(bench: Bench) -> None:
        running = await bench.occupied()
        two = bench.send(
            text_input=np.array([[b"one"], [b"two"]], np.object_),
            max_tokens=np.array([[64], [64]], np.int32),
            parameters={"deadline_ms": 5000},
        )
        after = bench.send("after")
        await bench.until(lambda: bench.service.snapshot().queue_length == 3)
        now = bench.service.now()
        for job_id in too_long:  # 6.4 s are now expected of them
            assert bench.core.repredict(job_id, LengthPrediction(64.0, 64.0), now)
        bench.core.set_limits(now, max_inflight=2)
        bench.service.dispatcher.pump_soon()
        await bench.ended(two)
        assert two.ends == ["DeadlineExceeded: no engine slot was free in time for its deadline"]
        await bench.until(lambda: bench.engine.started == ["running", "after"])
        bench.engine.gate.set()
        await bench.ended(running, after)
        assert (running.ends, after.ends) == (["final"], ["final"])

    run(scenario, CoreSettings(policy="ssjf", max_inflight=1))
