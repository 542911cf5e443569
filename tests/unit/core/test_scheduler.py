from __future__ import annotations

import pytest

from ssjf.core.errors import DeadlineExceeded, InvalidRequest, InvalidSetting, QueueFull
from ssjf.core.policies.registry import POLICY_NAMES
from ssjf.core.scheduler import Schedule
from tests.unit.core.build import drain, make_job, make_scheduler


def test_a_full_queue_refuses_with_its_length_and_when_to_retry() -> None:
    scheduler = make_scheduler(max_queue=20, max_inflight=2)
    for _ in range(22):
        scheduler.submit(make_job(), 0.0)
        scheduler.schedule(0.0)
    with pytest.raises(QueueFull) as caught:
        scheduler.submit(make_job(), 1.0)
    assert caught.value.queue_length == 20
    assert caught.value.retry_after_s == 1.0  # nothing is known yet
    assert "20 requests wait" in str(caught.value)
    assert scheduler.snapshot(1.0).rejected == 1


def test_the_retry_estimate_is_a_tenth_of_the_queue_at_the_present_pace() -> None:
    scheduler = make_scheduler(max_queue=40, max_inflight=2)
    now = 0.0
    for _ in range(30):  # each job takes 3 s in one of two slots
        for _ in range(2):
            scheduler.submit(make_job(), now)
        for job in scheduler.schedule(now).dispatch:
            scheduler.finish(job.job_id, 100, now + 3)
        now += 3
    for _ in range(42):
        scheduler.submit(make_job(), now)
        scheduler.schedule(now)
    with pytest.raises(QueueFull) as caught:
        scheduler.submit(make_job(), now)
    assert caught.value.retry_after_s == pytest.approx(4 * 3 / 2)


def test_bytes_are_limited_and_given_back() -> None:
    scheduler = make_scheduler(max_queue_bytes=1000)
    first = make_job(size_bytes=600)
    scheduler.submit(first, 0.0)
    with pytest.raises(QueueFull, match="1000 bytes"):
        scheduler.submit(make_job(size_bytes=401), 0.0)
    scheduler.submit(make_job(size_bytes=400), 0.0)
    assert scheduler.snapshot(0.0).queue_bytes == 1000
    assert scheduler.schedule(0.0).dispatch == [first]
    scheduler.submit(make_job(size_bytes=600), 0.0)
    assert scheduler.snapshot(0.0).queue_bytes == 1000


def test_a_job_that_can_never_fit_is_not_told_to_retry() -> None:
    with pytest.raises(InvalidRequest, match="size_bytes is 1001, allowed: at most max_queue_bytes 1000"):
        make_scheduler(max_queue_bytes=1000).submit(make_job(size_bytes=1001), 0.0)


def test_a_job_past_its_deadline_is_refused() -> None:
    scheduler = make_scheduler()
    with pytest.raises(DeadlineExceeded, match=r"2\.000 s before"):
        scheduler.submit(make_job(start_deadline=3.0), 5.0)
    with pytest.raises(DeadlineExceeded):
        scheduler.submit(make_job(start_deadline=5.0), 5.0)
    assert (len(scheduler), scheduler.snapshot(5.0).rejected) == (0, 2)


def test_a_job_that_cannot_start_in_time_is_dropped_at_its_deadline() -> None:
    scheduler = make_scheduler()
    running, late, later = make_job(), make_job(start_deadline=7.0), make_job(start_deadline=6.0)
    scheduler.submit(running, 0.0)
    scheduler.schedule(0.0)
    for job in (late, later):
        scheduler.submit(job, 0.0)
    assert scheduler.next_event(0.0) == 6.0
    assert scheduler.schedule(5.9).expired == []
    assert scheduler.schedule(6.0).expired == [later]
    assert scheduler.next_event(6.0) == 7.0
    scheduler.finish(running.job_id, 5, 6.5)
    assert scheduler.schedule(7.0) == Schedule([], [late])
    assert scheduler.next_event(7.0) is None


def test_a_job_that_started_has_met_its_deadline() -> None:
    scheduler = make_scheduler()
    job = make_job(start_deadline=7.0)
    scheduler.submit(job, 0.0)
    assert scheduler.schedule(1.0).dispatch == [job]
    assert scheduler.next_event(1.0) is None
    assert scheduler.schedule(8.0).expired == []


def test_a_returned_job_keeps_its_deadline() -> None:
    scheduler = make_scheduler()
    job = make_job(start_deadline=7.0)
    scheduler.submit(job, 0.0)
    scheduler.schedule(0.0)
    scheduler.requeue(job.job_id, 1.0)
    assert scheduler.next_event(1.0) == 7.0
    assert scheduler.schedule(7.0) == Schedule([], [job])


def test_cancelling_a_waiting_job_takes_it_out() -> None:
    scheduler = make_scheduler()
    running, waiting = make_job(), make_job(size_bytes=10)
    for job in (running, waiting):
        scheduler.submit(job, 0.0)
    scheduler.schedule(0.0)
    assert scheduler.cancel(waiting.job_id, 0.0) == "waiting"
    assert scheduler.cancel(waiting.job_id, 0.0) is None
    state = scheduler.snapshot(0.0)
    assert (state.queue_length, state.queue_bytes, state.backlog_tokens, state.cancelled) == (0, 0, {0: 0.0}, 1)


def test_cancelling_a_running_job_keeps_its_slot_until_it_is_finished_and_teaches_nothing() -> None:
    scheduler = make_scheduler(prior_tokens=300)
    running, waiting = make_job(), make_job()
    for job in (running, waiting):
        scheduler.submit(job, 0.0)
    scheduler.schedule(0.0)
    assert scheduler.cancel(running.job_id, 0.0) == "running"
    assert scheduler.cancel(running.job_id, 0.0) == "running"
    assert scheduler.schedule(0.0).dispatch == []
    scheduler.finish(running.job_id, 5, 0.0)
    assert scheduler.schedule(0.0).dispatch == [waiting]
    state = scheduler.snapshot(0.0)
    assert (state.prior_mean_tokens, state.cancelled) == (300, 1)


def test_finished_answers_teach_the_prior_by_the_sequence_unless_told_not_to() -> None:
    scheduler = make_scheduler(prior_tokens=300, max_inflight=100)
    for _ in range(20):
        learned, failed = make_job(sequences=2), make_job(sequences=2)
        for job in (learned, failed):
            scheduler.submit(job, 0.0)
        scheduler.schedule(0.0)
        scheduler.finish(learned.job_id, 80, 0.0)
        scheduler.finish(failed.job_id, 4000, 0.0, learn=False)
    assert scheduler.snapshot(0.0).prior_mean_tokens == 40
    assert scheduler.prior_prediction(max_tokens=30).mean == 30


def test_a_job_is_queued_again_once() -> None:
    scheduler = make_scheduler()
    job, shorter = make_job(100), make_job(1)
    scheduler.submit(job, 0.0)
    scheduler.schedule(0.0)
    scheduler.submit(shorter, 0.0)
    assert scheduler.requeue(job.job_id, 1.0)
    assert scheduler.schedule(1.0).dispatch == [job]
    assert not scheduler.requeue(job.job_id, 2.0)
    assert scheduler.schedule(2.0).dispatch == [shorter]
    state = scheduler.snapshot(2.0)
    assert (state.requeued, state.dispatched, state.finished, state.in_flight) == (1, 3, 1, 1)


def test_a_cancelled_job_is_not_queued_again() -> None:
    scheduler = make_scheduler()
    job = make_job()
    scheduler.submit(job, 0.0)
    scheduler.schedule(0.0)
    scheduler.cancel(job.job_id, 0.0)
    assert not scheduler.requeue(job.job_id, 0.0)
    assert (len(scheduler), scheduler.snapshot(0.0).in_flight) == (0, 0)


def test_a_returned_job_may_be_cancelled_while_it_waits() -> None:
    scheduler = make_scheduler()
    job = make_job()
    scheduler.submit(job, 0.0)
    scheduler.schedule(0.0)
    scheduler.requeue(job.job_id, 0.0)
    assert scheduler.cancel(job.job_id, 0.0) == "waiting"
    assert scheduler.schedule(0.0).dispatch == []


@pytest.mark.parametrize("urgency", [-1, 10])
def test_an_unknown_priority_class_is_refused(urgency: int) -> None:
    with pytest.raises(InvalidRequest, match=rf"priority_class is {urgency}, allowed: 0 to 9"):
        make_scheduler().submit(make_job(priority_class=urgency), 0.0)


def test_an_id_in_use_is_refused() -> None:
    scheduler = make_scheduler()
    running, waiting = make_job(), make_job()
    for job in (running, waiting):
        scheduler.submit(job, 0.0)
    scheduler.schedule(0.0)
    for job in (running, waiting):
        with pytest.raises(InvalidRequest, match="job_id"):
            scheduler.submit(job, 0.0)


@pytest.mark.parametrize("before", POLICY_NAMES)
@pytest.mark.parametrize("after", ["fcfs", "ssjf", "hrrn"])
def test_a_switch_keeps_every_job_and_gives_the_new_order(before: str, after: str) -> None:
    scheduler = make_scheduler(policy=before, max_inflight=2)
    jobs = [make_job(10 + (index * 37) % 101, arrival=index * 0.1, tenant=str(index % 3)) for index in range(60)]
    for job in jobs:
        scheduler.submit(job, 6.0)
    running = scheduler.schedule(6.0).dispatch
    scheduler.set_policy(after, 6.0)
    assert scheduler.snapshot(6.0).in_flight == 2
    for job in running:
        scheduler.finish(job.job_id, 10, 6.0)
    fresh = make_scheduler(policy=after, max_inflight=2)
    left = [job for job in jobs if job not in running]
    for job in left:
        fresh.submit(job, 6.0)
    order, expected = drain(scheduler, 6.0), drain(fresh, 6.0)
    assert sorted(order) == sorted(job.job_id for job in left)
    # Tenants were charged for what ran before; within a tenant the order is that of the new policy alone.
    tenant_of = {job.job_id: job.tenant for job in jobs}
    for tenant in "012":
        assert [i for i in order if tenant_of[i] == tenant] == [i for i in expected if tenant_of[i] == tenant]


def test_a_switch_refuses_wrong_names_and_values_and_changes_nothing() -> None:
    scheduler = make_scheduler(policy="ssjf")
    settings = scheduler.settings
    for name, changes in (("lifo", {}), ("fcfs", {"aging_rate": -1}), ("fcfs", {"max_inflight": 3})):
        with pytest.raises(InvalidSetting):
            scheduler.set_policy(name, 0.0, **changes)
    for limits in ({"max_inflight": 0}, {"policy": "fcfs"}, {"max_inflight": 3, "batching": "magic"}):
        with pytest.raises(InvalidSetting):
            scheduler.set_limits(0.0, **limits)
    assert scheduler.settings is settings
    assert scheduler.snapshot(0.0).effective_policy == "ssjf"


@pytest.mark.parametrize(("length", "rate", "first"), [(30, 1.0, "new"), (3000, 100.0, "old")])
def test_the_aging_rate_follows_the_running_mean_and_what_waits_is_ordered_anew(
    length: int, rate: float, first: str
) -> None:
    scheduler = make_scheduler(policy="ssjf-aging", max_wait_s=60.0, prior_tokens=300.0, max_inflight=2)
    assert scheduler.snapshot(0.0).aging_rate == 10.0
    jobs = {"old": make_job(150, arrival=0.0), "new": make_job(100, arrival=1.0 if first == "old" else 20.0)}
    blocker = make_job(length)
    scheduler.submit(blocker, 0.0)
    scheduler.schedule(0.0)
    for _ in range(127):
        job = make_job(length)
        scheduler.submit(job, 0.0)
        scheduler.schedule(0.0)
        scheduler.finish(job.job_id, length, 0.0)
    scheduler.set_limits(0.0, max_inflight=1)
    for job in jobs.values():
        scheduler.submit(job, 20.0)
    scheduler.finish(blocker.job_id, length, 20.0)
    assert scheduler.snapshot(20.0).aging_rate == rate
    # With the rate of 10 that was in force when they came, it would have been the other one.
    assert scheduler.schedule(20.0).dispatch == [jobs[first]]


def test_a_configured_aging_rate_stays() -> None:
    scheduler = make_scheduler(policy="ssjf-aging", aging_rate=7.0)
    for _ in range(200):
        job = make_job(1)
        scheduler.submit(job, 0.0)
        scheduler.schedule(0.0)
        scheduler.finish(job.job_id, 1, 0.0)
    assert scheduler.snapshot(0.0).aging_rate == 7.0
    scheduler.set_policy("ssjf-aging", 0.0, aging_rate=3.0)
    assert scheduler.snapshot(0.0).aging_rate == 3.0


def test_a_new_max_wait_holds_for_what_waits_and_renews_the_rate() -> None:
    scheduler = make_scheduler(policy="ssjf-aging", max_wait_s=60.0, prior_tokens=300.0)
    old, new = make_job(4000, arrival=0.0), make_job(1, arrival=1.0)
    for job in (old, new):
        scheduler.submit(job, 1.0)
    scheduler.set_limits(1.0, max_wait_s=5.0)
    assert scheduler.snapshot(1.0).aging_rate == 120.0
    assert scheduler.schedule(5.0).dispatch == [old]


def test_snapshot_shows_the_queue_by_class() -> None:
    scheduler = make_scheduler(max_inflight_tokens=5000)
    for predicted, urgency in ((100, 0), (200, 3), (50, 3)):
        scheduler.submit(make_job(predicted, priority_class=urgency, sequences=2, arrival=4.0), 4.0)
    state = scheduler.snapshot(6.0)
    assert state.queue_lengths == {0: 1, 3: 2}
    assert state.backlog_tokens == {0: 200.0, 3: 500.0}
    assert (state.queue_length, state.oldest_wait_s, state.limits.max_inflight_tokens) == (3, 2.0, 5000)
    scheduler.schedule(6.0)
    state = scheduler.snapshot(6.0)
    assert (state.queue_lengths, state.in_flight, state.tokens_in_flight) == ({0: 0, 3: 2}, 1, 200)


def test_memory_stays_bounded_when_one_tenant_submits_and_cancels() -> None:
    scheduler = make_scheduler(max_inflight_tokens=1000, max_wait_s=60.0)
    for _ in range(2):  # one runs, one waits
        scheduler.submit(make_job(), 0.0)
    scheduler.schedule(0.0)
    for step in range(3000):
        job = make_job(1 + step % 500, arrival=step, start_deadline=1e9)
        scheduler.submit(job, step)
        scheduler.cancel(job.job_id, step)
        assert scheduler._queue.entries < 4 * (64 + 64 + 8)


def test_memory_stays_bounded_under_storms_of_submit_and_cancel() -> None:
    scheduler = make_scheduler(max_inflight_tokens=1000, max_wait_s=60.0)
    scheduler.submit(make_job(), 0.0)
    scheduler.schedule(0.0)
    for storm in range(50):
        jobs = [
            make_job(1 + index, arrival=storm, tenant=f"{storm}-{index % 7}", start_deadline=1e9)
            for index in range(200)
        ]
        for job in jobs:
            scheduler.submit(job, storm)
        for job in jobs[:-1]:
            scheduler.cancel(job.job_id, storm)
    # Five views of 50 jobs, each at most twice as long and a constant more for each tenant that waits or lately did.
    assert len(scheduler) == 50
    assert scheduler._queue.entries < 5 * 2 * 50 + 4 * 64 * 50
    for job in list(scheduler._queue):
        scheduler.cancel(job.job_id, 50.0)
    assert len(scheduler._queue._classes[0].tenants) <= 64
