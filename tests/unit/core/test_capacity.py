"""What the engines can take now may be less than the limits."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.admission import Capacity
from ssjf.core.scheduler import Schedule
from tests.unit.core.build import make_job, make_scheduler


@given(st.integers(1, 6), st.lists(st.integers(0, 8), min_size=1, max_size=8))
def test_no_more_start_than_the_engines_can_take_and_all_that_can(max_inflight: int, offers: list[int]) -> None:
    scheduler = make_scheduler(max_inflight=max_inflight)
    for _ in range(5):
        scheduler.submit(make_job(), 0.0)
    for slots in offers:
        before = scheduler.snapshot(0.0)
        started = scheduler.schedule(0.0, Capacity(slots)).dispatch
        assert len(started) == min(slots, max_inflight - before.in_flight, before.queue_length)


def test_with_no_engine_nothing_starts_but_deadlines_still_pass() -> None:
    scheduler = make_scheduler()
    hurried, patient = make_job(start_deadline=5.0), make_job()
    scheduler.submit(hurried, 0.0)
    scheduler.submit(patient, 0.0)
    assert scheduler.schedule(5.0, Capacity(0, 0.0)) == Schedule([], [hurried])
    assert scheduler.schedule(6.0).dispatch == [patient]


def test_the_token_budget_shrinks_with_the_engines() -> None:
    scheduler = make_scheduler(max_inflight=8, max_inflight_tokens=1000)
    jobs = [make_job(200, prompt_tokens=50) for _ in range(4)]
    for job in jobs:
        scheduler.submit(job, 0.0)
    assert len(scheduler.schedule(0.0, Capacity(8, 0.5)).dispatch) == 2
    assert len(scheduler.schedule(0.0, Capacity(8, 1.0)).dispatch) == 2


def test_a_job_that_never_reached_an_engine_may_be_queued_again_any_number_of_times() -> None:
    scheduler = make_scheduler()
    job = make_job()
    scheduler.submit(job, 0.0)
    for tried, again in ((False, True), (False, True), (True, True), (False, True), (True, False)):
        assert scheduler.schedule(0.0).dispatch == [job]
        assert scheduler.requeue(job.job_id, 0.0, tried=tried) is again
    assert scheduler.snapshot(0.0).in_flight == 0
