from __future__ import annotations

import pytest

from ssjf.core.admission import Capacity
from ssjf.core.errors import UnknownJob
from ssjf.core.scheduler import Scheduler
from tests.unit.core.build import make_job, make_scheduler


def submit(scheduler: Scheduler, count: int, predicted: float = 100.0, **fields: float) -> list[int]:
    jobs = [make_job(predicted, **fields) for _ in range(count)]
    for job in jobs:
        scheduler.submit(job, job.arrival)
    return [job.job_id for job in jobs]


def started(scheduler: Scheduler, now: float = 0.0) -> list[int]:
    return [job.job_id for job in scheduler.schedule(now).dispatch]


def test_continuous_fills_every_slot_as_it_frees() -> None:
    scheduler = make_scheduler(max_inflight=3)
    ids = submit(scheduler, 6)
    assert started(scheduler) == ids[:3]
    assert started(scheduler) == []
    scheduler.finish(ids[1], 100, 1.0)
    assert started(scheduler) == ids[3:4]


def test_over_dispatch_adds_slots_in_continuous_mode_only() -> None:
    for batching, expected in (("continuous", 5), ("dynamic", 3), ("none", 1)):
        scheduler = make_scheduler(max_inflight=3, over_dispatch=2, batching=batching)
        submit(scheduler, 9)
        assert len(started(scheduler)) == expected


def test_dynamic_starts_the_next_group_when_the_group_is_done() -> None:
    scheduler = make_scheduler(max_inflight=8, batching="dynamic", batch_size=3)
    ids = submit(scheduler, 5)
    assert started(scheduler) == ids[:3]
    for job_id in ids[:2]:
        scheduler.finish(job_id, 100, 1.0)
        assert started(scheduler) == []
    scheduler.finish(ids[2], 100, 1.0)
    assert started(scheduler) == ids[3:]


def test_a_group_is_no_larger_than_the_slots() -> None:
    scheduler = make_scheduler(max_inflight=2, batching="dynamic", batch_size=30)
    submit(scheduler, 5)
    assert len(started(scheduler)) == 2


def test_none_runs_one_at_a_time() -> None:
    scheduler = make_scheduler(max_inflight=8, batching="none")
    ids = submit(scheduler, 2)
    assert started(scheduler) == ids[:1]
    assert started(scheduler) == []
    scheduler.finish(ids[0], 100, 1.0)
    assert started(scheduler) == ids[1:]


def test_budget_counts_prompt_and_prediction_of_every_sequence() -> None:
    scheduler = make_scheduler(max_inflight=9, max_inflight_tokens=1000)
    submit(scheduler, 3, 100, prompt_tokens=100, sequences=2)
    assert len(started(scheduler)) == 3
    assert scheduler.snapshot(0.0).tokens_in_flight == 900
    submit(scheduler, 1, 101)
    assert started(scheduler) == []
    submit(scheduler, 1, 100)
    assert len(started(scheduler)) == 1


def test_a_job_that_fits_passes_one_that_does_not() -> None:
    scheduler = make_scheduler(max_inflight=9, max_inflight_tokens=1000)
    submit(scheduler, 1, 800)
    started(scheduler)
    submit(scheduler, 1, 50, prompt_tokens=500)
    (small,) = submit(scheduler, 1, 150)
    assert started(scheduler) == [small]


def test_the_cheapest_job_is_found_however_far_down_the_order_it_is() -> None:
    scheduler = make_scheduler(max_inflight=9, max_inflight_tokens=1000)
    submit(scheduler, 1, 800)
    started(scheduler)
    submit(scheduler, 100, 50, prompt_tokens=500)
    (small,) = submit(scheduler, 1, 150)
    assert started(scheduler) == [small]


def test_another_tenants_job_goes_when_nothing_of_the_first_fits() -> None:
    scheduler = make_scheduler(max_inflight=9, max_inflight_tokens=1000)
    for tenant, predicted in (("a", 500), ("b", 400)):
        scheduler.submit(make_job(predicted, tenant=tenant), 0.0)
    assert len(started(scheduler)) == 2
    scheduler.submit(make_job(900, tenant="b"), 0.0)  # b was served less: its turn
    small = make_job(50, tenant="a")
    scheduler.submit(small, 0.0)
    assert started(scheduler) == [small.job_id]


def test_an_overdue_job_reserves_the_budget_and_nothing_younger_passes() -> None:
    scheduler = make_scheduler(max_inflight=9, max_inflight_tokens=1000, max_wait_s=10.0)
    (running,) = submit(scheduler, 1, 800)
    started(scheduler)
    (large,) = submit(scheduler, 1, 900)
    (passes,) = submit(scheduler, 1, 100, arrival=5.0)
    assert started(scheduler, 5.0) == [passes]
    scheduler.finish(passes, 100, 6.0)
    (small,) = submit(scheduler, 1, 100, arrival=6.0)
    assert started(scheduler, 10.0) == []
    scheduler.finish(running, 800, 11.0)
    assert started(scheduler, 11.0) == [large, small]


def test_a_reservation_also_holds_for_less_urgent_classes_but_not_for_more_urgent_ones() -> None:
    scheduler = make_scheduler(max_inflight=9, max_inflight_tokens=1000, max_wait_s=10.0)
    submit(scheduler, 1, 800)
    started(scheduler)
    submit(scheduler, 1, 900, priority_class=1)
    submit(scheduler, 1, 10, priority_class=2, arrival=11.0)
    assert started(scheduler, 11.0) == []
    (urgent,) = submit(scheduler, 1, 10, priority_class=0, arrival=11.0)
    assert started(scheduler, 11.0) == [urgent]


def test_a_job_larger_than_the_whole_budget_runs_alone() -> None:
    scheduler = make_scheduler(max_inflight=9, max_inflight_tokens=1000, max_wait_s=10.0)
    (running,) = submit(scheduler, 1, 100)
    started(scheduler)
    (giant,) = submit(scheduler, 1, 4000)
    assert started(scheduler, 20.0) == []
    scheduler.finish(running, 100, 21.0)
    (small,) = submit(scheduler, 1, 1, arrival=21.0)
    assert started(scheduler, 21.0) == [giant]
    scheduler.finish(giant, 4000, 22.0)
    assert started(scheduler, 22.0) == [small]


def test_an_answer_that_outgrows_its_prediction_takes_room_with_some_headroom() -> None:
    scheduler = make_scheduler(max_inflight=9, max_inflight_tokens=1000)
    (job_id,) = submit(scheduler, 1, 100, prompt_tokens=50, max_tokens=900)
    started(scheduler)
    scheduler.progress(job_id, 100, 1.0)
    assert scheduler.snapshot(1.0).tokens_in_flight == 150
    scheduler.progress(job_id, 400, 2.0)
    assert scheduler.snapshot(2.0).tokens_in_flight == 550
    submit(scheduler, 1, 451)
    assert started(scheduler, 2.0) == []
    scheduler.progress(job_id, 880, 3.0)
    assert scheduler.snapshot(3.0).tokens_in_flight == 950  # never more than prompt and max_tokens
    scheduler.finish(job_id, 880, 4.0)
    assert scheduler.snapshot(4.0).tokens_in_flight == 0
    assert len(started(scheduler, 4.0)) == 1


def test_a_lowered_limit_lets_running_jobs_run_and_holds_back_new_ones() -> None:
    scheduler = make_scheduler(max_inflight=4)
    ids = submit(scheduler, 8)
    assert len(started(scheduler)) == 4
    scheduler.set_limits(0.0, max_inflight=2)
    for job_id in ids[:2]:
        scheduler.finish(job_id, 100, 1.0)
        assert started(scheduler) == []
    scheduler.finish(ids[2], 100, 1.0)
    assert started(scheduler) == ids[4:5]


def test_a_budget_can_be_set_and_lifted_live() -> None:
    scheduler = make_scheduler(max_inflight=4)
    submit(scheduler, 8, 100)
    scheduler.set_limits(0.0, max_inflight_tokens=200)
    assert len(started(scheduler)) == 2
    scheduler.set_limits(0.0, max_inflight_tokens=None)
    assert len(started(scheduler)) == 2


def test_engines_may_take_less_than_the_limits_allow() -> None:
    scheduler = make_scheduler(max_inflight=4, max_inflight_tokens=1000)
    ids = submit(scheduler, 8, 100)
    assert [job.job_id for job in scheduler.schedule(0.0, Capacity(slots=1)).dispatch] == ids[:1]
    assert scheduler.schedule(0.0, Capacity(slots=0)).dispatch == []
    # 100 tokens run, half of the budget leaves room for four more, the limit of slots for three.
    assert len(scheduler.schedule(0.0, Capacity(slots=9, share=0.25)).dispatch) == 1
    assert len(scheduler.schedule(0.0, Capacity(slots=9, share=0.5)).dispatch) == 2


def test_only_running_jobs_can_progress_finish_or_return() -> None:
    scheduler = make_scheduler()
    (waiting,) = submit(scheduler, 1)
    for call in (
        lambda: scheduler.progress(waiting, 5, 0.0),
        lambda: scheduler.finish(waiting, 5, 0.0),
        lambda: scheduler.requeue(waiting, 0.0),
        lambda: scheduler.finish(999_999, 5, 0.0),
    ):
        with pytest.raises(UnknownJob):
            call()
    started(scheduler)
    scheduler.finish(waiting, 5, 0.0)
    with pytest.raises(UnknownJob):
        scheduler.finish(waiting, 5, 0.0)
