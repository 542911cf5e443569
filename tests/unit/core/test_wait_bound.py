"""The guarantee: a job waits at most max_wait plus the work that FCFS would also have put before it."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ssjf.core.job import Job
from ssjf.core.policies.registry import POLICY_NAMES
from ssjf.core.scheduler import Scheduler
from tests.unit.core.build import make_job, make_scheduler

# Exact in binary, so that ties are ties.
_QUARTER_S = 0.25
_BUDGET = 1000
# What a job is predicted to need: next to nothing, a part, most of the budget and more than all of it.
_SIZES = (10, 400, 900, 1500)


@dataclass(frozen=True)
class Work:
    """A job and how long it really takes, which its prediction need not know."""

    job: Job
    seconds: float


@dataclass(frozen=True)
class Served:
    """When a job was there, began and ended."""

    arrived: float
    began: float
    ended: float

    def left(self, now: float) -> float:
        """Its work that is not done at `now`, in seconds."""
        return max(0.0, self.ended - max(self.began, now))


def run(scheduler: Scheduler, works: Sequence[Work]) -> list[Served]:
    """Serve works that come in order of arrival on as many slots as the scheduler fills; the same order."""
    seconds_of = {work.job.job_id: work.seconds for work in works}
    coming = deque(work.job for work in works)
    ends: dict[int, float] = {}  # of those that run
    served: dict[int, Served] = {}
    while coming or ends or len(scheduler):
        first = min(ends, key=lambda job_id: ends[job_id], default=None)
        if coming and (first is None or coming[0].arrival < ends[first]):
            job = coming.popleft()
            now = job.arrival
            scheduler.submit(job, now)
        else:
            assert first is not None, "nothing runs although jobs wait"
            now = ends.pop(first)
            scheduler.finish(first, 1, now, learn=False)
        for job in scheduler.schedule(now).dispatch:
            ends[job.job_id] = now + seconds_of[job.job_id]
            served[job.job_id] = Served(job.arrival, now, ends[job.job_id])
    return [served[work.job.job_id] for work in works]


def excess(served: Sequence[Served], max_wait_s: float, abreast: int) -> float:
    """By how many seconds a job waited longer than the guarantee allows, at worst; not at all below 0.

    Before it go the older ones, and of the younger only those that were in their slots when it became overdue: nothing
    that runs is preempted. `abreast`: how many run at least while jobs wait.
    """
    worst = -math.inf
    for at, one in enumerate(served):
        overdue = one.arrived + max_wait_s
        work = sum(older.left(one.arrived) for older in served[:at])
        work += sum(younger.left(overdue) for younger in served[at + 1 :] if younger.began < overdue)
        worst = max(worst, one.began - overdue - work / abreast)
    return worst


def workload(pieces: Sequence[tuple[int, int, int]]) -> list[Work]:
    """From quarter seconds since the one before, quarter seconds of service, and predicted tokens."""
    works, now = [], 0.0
    for gap, service, size in pieces:
        now += gap * _QUARTER_S
        works.append(Work(make_job(size, arrival=now), service * _QUARTER_S))
    return works


PIECES = st.lists(
    st.tuples(st.integers(0, 6), st.integers(1, 8), st.sampled_from(_SIZES)),
    min_size=1,
    max_size=60,
)
# One large job, and after it small ones without end that each fit beside those that run.
STARVING = [(0, 4, 10), (1, 4, 1500), *[(2, 4, 10)] * 40]
# The same for a job that only its prediction puts last.
OVERLOAD = [(0, 4, 10), (1, 4, 1500), *[(1, 4, 10)] * 40]


@pytest.mark.parametrize("budgeted", [False, True], ids=["slots alone", "token budget"])
@pytest.mark.parametrize("policy", POLICY_NAMES)
@settings(max_examples=150, deadline=None)
@given(pieces=PIECES, slots=st.integers(1, 4), max_wait_s=st.sampled_from([0.5, 2.0, 5.0]))
@example(pieces=STARVING, slots=4, max_wait_s=0.5)
@example(pieces=OVERLOAD, slots=1, max_wait_s=0.5)
def test_no_job_waits_longer_than_max_wait_plus_what_fcfs_puts_before_it(
    policy: str, budgeted: bool, pieces: list[tuple[int, int, int]], slots: int, max_wait_s: float
) -> None:
    works = workload(pieces)
    scheduler = make_scheduler(
        policy=policy,
        max_inflight=slots,
        max_wait_s=max_wait_s,
        max_inflight_tokens=_BUDGET if budgeted else None,
    )
    # A job that does not fit the token budget reserves it and may leave slots empty, but never all of them.
    assert excess(run(scheduler, works), max_wait_s, 1 if budgeted else slots) < 1e-9


def long_overload(seed: int, load: float, slots: int) -> list[Work]:
    """Poisson arrivals that are predicted more or less well."""
    source = random.Random(seed)
    works, now = [], 0.0
    for _ in range(400):
        now += source.expovariate(load * slots)
        service = min(8.0, source.expovariate(1.0) + 0.01)
        works.append(Work(make_job(service * source.lognormvariate(0, 1) * 50, arrival=now), service))
    return works


@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize(("load", "slots"), [(0.9, 1), (1.3, 1), (1.3, 4)])
def test_nor_in_a_long_overload(policy: str, load: float, slots: int) -> None:
    works = long_overload(0, load, slots)
    scheduler = make_scheduler(policy=policy, max_inflight=slots, max_wait_s=5.0)
    assert excess(run(scheduler, works), 5.0, slots) < 1e-9


def test_without_the_bound_it_would_not_hold() -> None:
    assert excess(run(make_scheduler(), long_overload(0, 1.3, 1)), 5.0, 1) > 5.0


def test_nor_would_it_where_a_large_job_waits_for_room() -> None:
    scheduler = make_scheduler(max_inflight=4, max_inflight_tokens=_BUDGET)
    assert excess(run(scheduler, workload(STARVING)), 5.0, 1) > 5.0
