"""A prediction that comes, or changes, while its job waits."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.job import Job, LengthPrediction
from ssjf.core.ordering import GroupedOrder, KeyedOrder, Ordering
from ssjf.core.policies.hrrn import Hrrn
from ssjf.core.policies.registry import POLICY_NAMES
from ssjf.core.scheduler import Scheduler
from tests.unit.core.build import drain, make_job, make_scheduler

lengths = st.floats(1, 2000)


def said(tokens: float) -> LengthPrediction:
    return LengthPrediction(tokens, tokens * 2)


@pytest.mark.parametrize("policy", POLICY_NAMES)
@given(
    jobs=st.lists(st.tuples(lengths, lengths, st.integers(0, 50), st.sampled_from("ab")), min_size=1, max_size=30),
    moves=st.lists(st.tuples(st.integers(0, 29), lengths), max_size=40),
    budget=st.none() | st.integers(100, 3000),
)
def test_a_job_goes_where_it_would_be_had_its_last_prediction_come_with_it(
    policy: str,
    jobs: list[tuple[float, float, int, str]],
    moves: list[tuple[int, float]],
    budget: int | None,
) -> None:
    anew = make_scheduler(policy=policy, max_inflight_tokens=budget, max_inflight=2)
    atonce = make_scheduler(policy=policy, max_inflight_tokens=budget, max_inflight=2)
    last = {at: second for at, (_, second, _, _) in enumerate(jobs)} | {
        at: tokens for at, tokens in moves if at < len(jobs)
    }
    for at, (first, _, arrival, tenant) in enumerate(jobs):
        facts: dict[str, Any] = {"job_id": at, "arrival": arrival, "tenant": tenant, "prompt_tokens": at}
        anew.submit(make_job(first, **facts), 50.0)
        job = make_job(**facts)
        job.expect(said(last[at]))
        atonce.submit(job, 50.0)
    for at, (_, second, _, _) in enumerate(jobs):
        assert anew.repredict(at, said(second), 50.0) is not None
    for at, tokens in moves:
        assert (anew.repredict(at, said(tokens), 50.0) is not None) == (at < len(jobs))
    states = anew.snapshot(50.0), atonce.snapshot(50.0)
    assert states[0].backlog_tokens == pytest.approx(states[1].backlog_tokens)
    assert drain(anew, 100.0, actual=7) == drain(atonce, 100.0, actual=7)


def test_a_policy_that_comes_later_orders_by_the_last_prediction() -> None:
    scheduler = make_scheduler(policy="fcfs")
    jobs = [make_job(100), make_job(200), make_job(300)]
    for job in jobs:
        scheduler.submit(job, 0.0)
    scheduler.repredict(jobs[2].job_id, said(5), 0.0)
    scheduler.set_policy("ssjf", 0.0)
    assert drain(scheduler) == [jobs[at].job_id for at in (2, 0, 1)]


def test_only_jobs_that_wait_are_ordered_anew() -> None:
    scheduler = make_scheduler()
    running, waiting = make_job(100), make_job(100)
    for job in (running, waiting):
        scheduler.submit(job, 0.0)
    assert scheduler.schedule(0.0).dispatch == [running]
    assert scheduler.repredict(running.job_id, said(5), 0.0) is None
    assert scheduler.repredict(12345, said(5), 0.0) is None
    assert running.predicted_tokens == 100  # what its tenant was charged with
    assert scheduler.repredict(waiting.job_id, said(5), 0.0) is waiting
    assert (waiting.predicted_tokens, waiting.prediction) == (5, said(5))
    assert scheduler.snapshot(0.0).repredicted == 1


def test_a_job_that_the_engine_gave_back_stays_in_front() -> None:
    scheduler = make_scheduler()
    returned, other = make_job(100), make_job(200)
    for job in (returned, other):
        scheduler.submit(job, 0.0)
    scheduler.schedule(0.0)
    assert scheduler.requeue(returned.job_id, 0.0)
    scheduler.repredict(returned.job_id, said(4000), 0.0)
    assert drain(scheduler) == [returned.job_id, other.job_id]


def test_an_overdue_job_stays_overdue() -> None:
    scheduler = make_scheduler(max_wait_s=10.0)
    old, new = make_job(100, arrival=0.0), make_job(200, arrival=9.0)
    for job in (old, new):
        scheduler.submit(job, 9.0)
    scheduler.repredict(old.job_id, said(4000), 9.0)
    assert drain(scheduler, 11.0) == [old.job_id, new.job_id]


def test_a_job_that_turns_out_small_may_fit_where_it_did_not() -> None:
    scheduler = make_scheduler(max_inflight=2, max_inflight_tokens=500)
    running, waiting = make_job(300), make_job(400)
    for job in (running, waiting):
        scheduler.submit(job, 0.0)
    assert scheduler.schedule(0.0).dispatch == [running]
    scheduler.repredict(waiting.job_id, said(100), 0.0)
    assert scheduler.schedule(0.0).dispatch == [waiting]


def test_the_guardrail_judges_by_the_prediction_that_the_job_went_with() -> None:
    scheduler = make_scheduler(guardrail=True, guardrail_every=1, guardrail_min_answers=20)
    source = random.Random(0)
    for _ in range(40):
        job = make_job(50, source="prior")
        scheduler.submit(job, 0.0)
        length = source.randint(1, 400)
        scheduler.repredict(job.job_id, said(length), 0.0)
        scheduler.schedule(0.0)
        scheduler.finish(job.job_id, length, 0.0)
    assert scheduler.snapshot(0.0).tau == pytest.approx(1.0)


@pytest.mark.parametrize("make", [lambda waiting: KeyedOrder(waiting, lambda job: job.predicted_tokens), None])
def test_entries_that_moved_jobs_leave_behind_stay_bounded(make: object) -> None:
    waiting: dict[int, Job] = {}
    order: Ordering = make(waiting) if callable(make) else GroupedOrder(waiting, Hrrn(0.01))
    source = random.Random(0)
    for step in range(5000):
        if len(waiting) < 10:
            job = make_job(source.randint(1, 2000), arrival=step)
            waiting[job.job_id] = job
            order.add(job)
        job = source.choice(list(waiting.values()))
        if source.random() < 0.1:
            del waiting[job.job_id]
        else:
            job.expect(said(source.randint(1, 2000)))
            order.move(job)
        order.trim()
        assert len(order) <= 2 * len(waiting) + 65
        first = order.first(1e6)  # what is first leaves its dead entries behind, too
        assert (first is None) == (not waiting)


@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize("budget", [None, 10_000])
def test_memory_stays_bounded_when_jobs_are_ordered_anew_for_ever(policy: str, budget: int | None) -> None:
    scheduler = make_scheduler(policy=policy, max_inflight_tokens=budget)
    source = random.Random(1)
    jobs = [make_job(source.randint(1, 2000)) for _ in range(50)]
    for job in jobs:
        scheduler.submit(job, 0.0)
    worst = 0
    for _ in range(5000):
        scheduler.repredict(source.choice(jobs).job_id, said(source.randint(1, 2000)), 0.0)
        worst = max(worst, entries(scheduler))
    # Three views of 50 jobs, each with as many dead entries as live ones and a slack of 64, twice noted where moved.
    assert worst <= 3 * 3 * (50 + 64 + 1)
    assert len(drain(scheduler)) == len(jobs)


def entries(scheduler: Scheduler) -> int:
    return scheduler._queue.entries  # its memory cannot be seen from outside
