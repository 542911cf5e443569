"""Who cannot be finished in time does not take the engine's; who surely cannot start in time is told at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.errors import DeadlineExceeded
from ssjf.core.job import LengthPrediction
from ssjf.core.scheduler import Schedule, Scheduler
from tests.unit.core.build import make_job, make_scheduler

PACE_S = 0.1  # seconds a token of the engine in these tests


def practised(now: float = 0.0, **settings: object) -> Scheduler:
    """A scheduler that has seen ten answers of 100 tokens at PACE_S."""
    scheduler = make_scheduler(**settings)
    for _ in range(10):
        scheduler.submit(make_job(), now)
        (job,) = scheduler.schedule(now).dispatch
        scheduler.progress(job.job_id, 100, now + 100 * PACE_S)
        scheduler.finish(job.job_id, 100, now + 100 * PACE_S)
        now += 100 * PACE_S
    return scheduler


def occupy(scheduler: Scheduler, now: float) -> int:
    """Fill the slot; the id of the job in it."""
    job = make_job()
    scheduler.submit(job, now)
    assert scheduler.schedule(now).dispatch == [job]
    return job.job_id


def test_a_job_is_dropped_when_the_time_that_it_needs_is_no_longer_there() -> None:
    scheduler = practised()
    running = occupy(scheduler, 100.0)
    job = make_job(50, start_deadline=112.0, end_deadline=112.0)
    scheduler.submit(job, 100.0)
    assert scheduler.next_event(100.0) == pytest.approx(112.0 - 50 * PACE_S)
    scheduler.finish(running, 100, 108.0)
    assert scheduler.schedule(108.0) == Schedule([], [job])


def test_without_an_end_deadline_only_the_start_counts() -> None:
    scheduler = practised()
    occupy(scheduler, 100.0)
    scheduler.submit(make_job(50, start_deadline=112.0), 100.0)
    assert scheduler.next_event(100.0) == 112.0


def test_a_job_that_needs_more_time_than_it_has_is_refused_with_the_reason() -> None:
    scheduler = practised()
    occupy(scheduler, 100.0)
    with pytest.raises(DeadlineExceeded, match=r"the deadline is in 4\.00 s, .*5\.00 s of answering are expected"):
        scheduler.submit(make_job(50, end_deadline=104.0), 100.0)
    assert scheduler.snapshot(100.0).rejected == 1


def test_it_may_try_where_a_slot_is_free_and_nobody_waits() -> None:
    scheduler = practised()
    job = make_job(50, end_deadline=104.0)
    scheduler.submit(job, 100.0)
    assert scheduler.schedule(100.0).dispatch == [job]


def test_nothing_is_expected_before_the_pace_is_known() -> None:
    scheduler = make_scheduler()
    occupy(scheduler, 100.0)
    scheduler.submit(make_job(4000, end_deadline=100.1), 100.0)
    assert scheduler.next_event(100.0) == 100.1


def test_predictions_are_corrected_by_their_bias() -> None:
    scheduler = practised(guardrail_min_answers=8, guardrail_every=1, guardrail_window=16)
    for _ in range(16):  # every answer is twice as long as predicted
        scheduler.submit(make_job(50), 100.0)
        (job,) = scheduler.schedule(100.0).dispatch
        scheduler.finish(job.job_id, 100, 110.0)
    occupy(scheduler, 120.0)
    scheduler.submit(make_job(50, end_deadline=140.0), 120.0)
    assert scheduler.next_event(120.0) == pytest.approx(140.0 - 100 * PACE_S)


def test_an_engine_that_hangs_does_not_spoil_the_pace() -> None:
    scheduler = practised()
    hanging = occupy(scheduler, 100.0)
    scheduler.progress(hanging, 10, 101.0)
    scheduler.finish(hanging, 10, 400.0, learn=False)  # given up
    occupy(scheduler, 400.0)
    scheduler.submit(make_job(50, end_deadline=420.0), 400.0)
    assert scheduler.next_event(400.0) == pytest.approx(415.0)


def test_jobs_cut_at_their_deadline_teach_the_pace() -> None:
    scheduler = practised()
    for round_ in range(200):  # four times slower than before, and none comes to its end
        now = 200.0 + 40 * round_
        slow = occupy(scheduler, now)
        scheduler.progress(slow, 100, now + 40.0)
        scheduler.finish(slow, 100, now + 40.0, learn=False)
    occupy(scheduler, 9000.0)
    scheduler.submit(make_job(50, end_deadline=9100.0), 9000.0)
    assert scheduler.next_event(9000.0) == pytest.approx(9100.0 - 50 * 4 * PACE_S, rel=0.001)


@pytest.mark.parametrize(("policy", "refused"), [("fcfs", True), ("ssjf", False), ("random", False)])
def test_who_would_wait_too_long_for_those_before_it_is_refused(policy: str, refused: bool) -> None:
    scheduler = practised(policy=policy)
    occupy(scheduler, 100.0)
    for _ in range(10):  # 100 s of work, half of which is believed
        scheduler.submit(make_job(100), 100.0)
    short = make_job(10, start_deadline=149.0)
    if refused:
        with pytest.raises(DeadlineExceeded, match=r"at least 50\.00 s of waiting"):
            scheduler.submit(short, 100.0)
    else:
        scheduler.submit(short, 100.0)
    scheduler.submit(make_job(10, start_deadline=151.0), 100.0)


def test_under_ssjf_the_shorter_ones_are_before_it() -> None:
    scheduler = practised(policy="ssjf")
    occupy(scheduler, 100.0)
    for _ in range(10):
        scheduler.submit(make_job(100), 100.0)
    with pytest.raises(DeadlineExceeded):
        scheduler.submit(make_job(200, start_deadline=149.0), 100.0)


def test_more_urgent_classes_are_before_it_and_other_tenants_take_turns() -> None:
    scheduler = practised(policy="fcfs")
    occupy(scheduler, 100.0)
    for _ in range(10):
        scheduler.submit(make_job(100, tenant="a", priority_class=1), 100.0)
    scheduler.submit(make_job(10, tenant="b", priority_class=1, start_deadline=101.0), 100.0)
    scheduler.submit(make_job(10, tenant="b", priority_class=0, start_deadline=101.0), 100.0)
    with pytest.raises(DeadlineExceeded):
        scheduler.submit(make_job(10, tenant="b", priority_class=2, start_deadline=101.0), 100.0)


@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(1.0, 60.0)), min_size=1, max_size=60),
    st.sampled_from(["fcfs", "ssjf", "ssjf-aging", "hrrn", "random"]),
)
def test_with_true_predictions_no_engine_time_is_thrown_away(jobs: list[tuple[int, float]], policy: str) -> None:
    """An engine at a steady pace with one slot: whoever is started while others compete is finished in time."""
    scheduler, now = practised(policy=policy), 1000.0
    occupied = occupy(scheduler, now)
    for length, patience in jobs:
        job = make_job(length, arrival=now, end_deadline=now + patience)
        try:
            scheduler.submit(job, now)
        except DeadlineExceeded:
            continue
    scheduler.finish(occupied, 100, now)
    while plan := scheduler.schedule(now).dispatch:
        (job,) = plan
        now += job.predicted_tokens * PACE_S
        assert job.end_deadline is not None
        assert now <= job.end_deadline + 1e-6
        scheduler.finish(job.job_id, int(job.predicted_tokens), now)


def test_what_is_learnt_of_a_waiting_job_changes_when_it_must_have_started() -> None:
    scheduler = practised()
    running = occupy(scheduler, 100.0)
    job, bounded = make_job(50, end_deadline=112.0), make_job(50, start_deadline=104.0, end_deadline=112.0)
    scheduler.submit(job, 100.0)
    scheduler.repredict(job.job_id, LengthPrediction(10, 10), 100.0)
    assert scheduler.next_event(100.0) == pytest.approx(112.0 - 10 * PACE_S)
    scheduler.submit(bounded, 100.0)
    scheduler.repredict(bounded.job_id, LengthPrediction(10, 10), 100.0)
    assert scheduler.next_event(100.0) == 104.0  # as its client asked
    scheduler.repredict(job.job_id, LengthPrediction(100, 100), 100.0)
    assert scheduler.next_event(100.0) == pytest.approx(112.0 - 100 * PACE_S)
    scheduler.finish(running, 100, 103.0)
    assert scheduler.schedule(103.0) == Schedule([bounded], [job])
