"""Deadlines with answers cut at them and without: `cancel_past_deadline`."""

from __future__ import annotations

import asyncio

import pytest

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
        bench.engine.gate.clear()
        running = bench.send("running")
        await bench.until(lambda: bench.engine.started == ["running"])
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
