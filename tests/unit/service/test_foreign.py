from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.service.engine.endpoint import EngineEndpoint
from ssjf.service.engine.foreign import ForeignRequests, ForeignWatch
from ssjf.service.engine.inflight import InflightAdapter
from ssjf.service.messages import EngineRequest
from tests.unit.service.fake_triton import FakeTriton, free_port


@given(
    st.lists(st.sampled_from(["send", "begin", "end", "lost", "foreign", "look", "look", "restart"]), max_size=120),
    st.booleans(),
    st.integers(0, 5),
)
def test_none_of_ours_is_ever_called_foreign(steps: list[str], at_end: bool, before: int) -> None:
    """An engine that counts requests when it takes them or when they end, forgets some, and restarts."""
    foreign = ForeignRequests()
    counted, sent, waiting, running, others = before, 0, 0, 0, 0
    foreign.observe(counted, sent, 0)
    for step in steps:
        if step == "send":
            sent, waiting = sent + 1, waiting + 1
        elif step == "begin" and waiting:
            waiting, running, counted = waiting - 1, running + 1, counted + (not at_end)
        elif step == "end" and running:
            running, counted = running - 1, counted + at_end
        elif step == "lost" and waiting:  # refused before the model saw it: never counted
            waiting -= 1
        elif step == "foreign":
            counted, others = counted + 1, others + 1
        elif step == "restart":
            counted = waiting = running = 0
        elif step == "look":
            foreign.observe(counted, sent, waiting + running)
        assert foreign.total <= others


def test_foreign_requests_are_counted_while_ours_run() -> None:
    foreign = ForeignRequests()
    foreign.observe(7, 0, 0)
    foreign.observe(9, 1, 1)  # one of ours, one of another
    assert foreign.total == 1
    foreign.observe(12, 2, 0)
    assert foreign.total == 3


def test_requests_that_the_engine_never_counted_hide_nothing_for_long() -> None:
    foreign = ForeignRequests()
    foreign.observe(0, 0, 0)
    for _ in range(2):
        foreign.observe(0, 3, 0)
    foreign.observe(1, 3, 0)
    assert foreign.total == 1


@pytest.mark.parametrize("reachable", [True, False])
def test_an_engines_statistics_are_watched(reachable: bool) -> None:
    async def main() -> None:
        fake = FakeTriton(free_port())
        if reachable:
            await fake.start()
        endpoint = EngineEndpoint(fake.url, InflightAdapter("tensorrt_llm"))
        watch = ForeignWatch([endpoint], period_s=0.005)
        watch.start()
        await asyncio.sleep(0.05)
        if reachable:
            request = EngineRequest("id", np.array([72], np.int32), 4, True, (), 1, {})
            assert len([chunk async for chunk in endpoint.generate(request)]) == 1
            fake.foreign += 2
            while not watch.totals()[fake.url]:
                await asyncio.sleep(0.005)
        assert watch.totals() == {fake.url: 2 if reachable else 0}
        assert (endpoint.sent, endpoint.running) == (int(reachable), 0)
        await watch.close()
        await endpoint.close()
        await fake.stop()

    asyncio.run(asyncio.wait_for(main(), 10))
