from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.settings import CoreSettings
from ssjf.service.engine.pool import EnginePool, Member, PoolSettings, State
from ssjf.service.messages import EngineChunk, EngineRequest

LIMITS = CoreSettings(max_inflight=6)


class FakeEndpoint:
    def __init__(self, url: str = "engine"):
        self.url = url
        self.ready = asyncio.Event()
        self.asked = 0

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        raise AssertionError("the pool itself sends nothing")

    async def is_ready(self, timeout_s: float) -> bool:
        self.asked += 1
        return self.ready.is_set()

    async def close(self) -> None:
        pass


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def with_pool(
    scenario: Callable[[EnginePool, list[FakeEndpoint], Clock], Awaitable[None]],
    endpoints: int = 2,
    settings: PoolSettings | None = None,
) -> None:
    async def main() -> None:
        fakes, clock = [FakeEndpoint(f"engine {number}") for number in range(endpoints)], Clock()
        pool = EnginePool(fakes, settings or PoolSettings(first_pause_s=0.001, longest_pause_s=0.002), clock)
        try:
            await scenario(pool, fakes, clock)
        finally:
            await pool.close()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.001)

    await asyncio.wait_for(poll(), 10)


@pytest.mark.parametrize(
    ("limits", "slots", "total"),
    [
        (CoreSettings(max_inflight=6), None, 6),
        (CoreSettings(max_inflight=7), None, 8),  # rounded up: the core holds the total
        (CoreSettings(max_inflight=6, over_dispatch=2), None, 8),
        (CoreSettings(max_inflight=6), 4, 8),
        (CoreSettings(max_inflight=6, over_dispatch=1), 4, 10),
    ],
)
def test_slots_are_shared_out_evenly_unless_given(limits: CoreSettings, slots: int | None, total: int) -> None:
    async def scenario(pool: EnginePool, _fakes: list[FakeEndpoint], _clock: Clock) -> None:
        assert pool.capacity(limits).slots == total

    with_pool(scenario, settings=PoolSettings(slots=slots))


def test_losing_an_endpoint_takes_its_slots_and_its_share_of_the_budget() -> None:
    async def scenario(pool: EnginePool, _fakes: list[FakeEndpoint], clock: Clock) -> None:
        assert (pool.capacity(LIMITS).slots, pool.capacity(LIMITS).share) == (6, 1.0)
        pool.failed(pool.members()[0], "gone", clock.now)
        assert (pool.capacity(LIMITS).slots, pool.capacity(LIMITS).share) == (3, 0.5)
        assert pool.down_since() is None
        clock.now = 107.0
        pool.failed(pool.members()[1], "gone, too", clock.now)
        assert (pool.capacity(LIMITS).slots, pool.down_since(), pool.last_reason()) == (0, 107.0, "gone, too")

    with_pool(scenario)


def test_an_endpoint_comes_back_through_a_probe_and_one_job_on_trial() -> None:
    async def scenario(pool: EnginePool, fakes: list[FakeEndpoint], clock: Clock) -> None:
        (member,) = pool.members()
        room = asyncio.Event()
        pool.on_room = room.set
        pool.capacity(LIMITS)
        running = pool.take()
        pool.failed(member, "gone", clock.now)
        await until(lambda: fakes[0].asked >= 3)
        assert member.state.value == "out"
        clock.now = 105.0
        fakes[0].ready.set()
        await asyncio.wait_for(room.wait(), 10)
        assert (member.state.value, pool.capacity(LIMITS).slots) == ("trial", 1)
        pool.take()
        assert pool.capacity(LIMITS).slots == 0
        assert pool.down_since() == 100.0  # on trial is not up
        pool.failed(member, "an old job's news", started=100.0)
        assert member.state.value == "trial"
        pool.worked(member)
        assert (member.state.value, pool.capacity(LIMITS).slots, pool.down_since()) == ("up", 4, None)
        pool.release(running)

    with_pool(scenario, endpoints=1)


def test_pauses_grow_while_trials_fail_and_shrink_when_one_succeeds() -> None:
    async def scenario(pool: EnginePool, fakes: list[FakeEndpoint], clock: Clock) -> None:
        (member,) = pool.members()
        fakes[0].ready.set()
        pauses = []
        for _ in range(4):
            pool.failed(member, "dead", clock.now)
            pauses.append(member.pause_s)
            await until(lambda: member.state.value == "trial")
        assert pauses == [0.001, 0.002, 0.004, 0.004]
        pool.worked(member)
        pool.failed(member, "dead", clock.now)
        assert member.pause_s == 0.001
        assert pool.describe()[0]["failures"] == 5

    with_pool(scenario, endpoints=1, settings=PoolSettings(first_pause_s=0.001, longest_pause_s=0.004))


@given(st.integers(1, 4), st.integers(1, 9), st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=60))
def test_no_endpoint_gets_more_than_its_slots_or_anything_while_out(
    endpoints: int, max_inflight: int, steps: list[tuple[int, int]]
) -> None:
    limits = CoreSettings(max_inflight=max_inflight)
    most = -(-max_inflight // endpoints)

    async def scenario(pool: EnginePool, _fakes: list[FakeEndpoint], clock: Clock) -> None:
        held: list[Member] = []
        for action, pick in steps:
            if action == 0 and pool.capacity(limits).slots:
                free = {member: member.free(most) for member in pool.members()}
                member = pool.take()
                assert free[member] == max(free.values()) > 0
                assert member.state is not State.OUT
                held.append(member)
            elif action == 1 and held:
                pool.release(held.pop(pick % len(held)))
            elif action == 2:
                pool.failed(pool.members()[pick % endpoints], "gone", clock.now)
            else:
                pool.worked(pool.members()[pick % endpoints])
            assert all(member.in_flight == held.count(member) <= most for member in pool.members())

    with_pool(scenario, endpoints, PoolSettings(first_pause_s=60.0))
