"""Priority classes, in them tenants, in those returned and overdue jobs, then the policy."""

from __future__ import annotations

from tests.unit.core.build import drain, make_job, make_scheduler


def test_classes_are_strict() -> None:
    scheduler = make_scheduler()
    low = make_job(1, priority_class=2)
    middle = make_job(900, priority_class=1)
    high = make_job(4000, priority_class=0)
    for job in (low, middle, high):
        scheduler.submit(job, 0.0)
    assert drain(scheduler) == [high.job_id, middle.job_id, low.job_id]


def test_an_overdue_job_does_not_pass_a_more_urgent_class() -> None:
    scheduler = make_scheduler(max_wait_s=10.0)
    overdue, urgent = make_job(1, priority_class=1), make_job(900, arrival=20.0, priority_class=0)
    scheduler.submit(overdue, 0.0)
    scheduler.submit(urgent, 20.0)
    assert drain(scheduler, 20.0) == [urgent.job_id, overdue.job_id]


def test_overdue_jobs_go_first_and_by_arrival_among_themselves() -> None:
    scheduler = make_scheduler(max_wait_s=10.0)
    jobs = [make_job(900, arrival=0.0), make_job(500, arrival=1.0), make_job(5, arrival=8.0), make_job(3, arrival=9.0)]
    for job in jobs:
        scheduler.submit(job, 9.0)
    assert drain(scheduler, 11.0) == [job.job_id for job in (jobs[0], jobs[1], jobs[3], jobs[2])]
    assert scheduler.snapshot(11.0).promotions == 2


def test_a_job_is_overdue_from_the_moment_it_has_waited_max_wait() -> None:
    for wait, expected in ((9.99, 5), (10.0, 900)):
        scheduler = make_scheduler(max_wait_s=10.0)
        scheduler.submit(make_job(900, arrival=0.0), 0.0)
        scheduler.submit(make_job(5, arrival=9.0), 9.0)
        assert scheduler.schedule(wait).dispatch[0].predicted_tokens == expected


def test_a_flood_of_overdue_jobs_hurts_only_its_own_tenant() -> None:
    scheduler = make_scheduler(max_wait_s=10.0)
    for _ in range(50):
        scheduler.submit(make_job(100, arrival=0.0, tenant="flood"), 0.0)
    other = make_job(100, arrival=20.0, tenant="other")
    scheduler.submit(other, 20.0)
    assert other.job_id in drain(scheduler, 20.0)[:2]


def test_a_returned_job_goes_before_overdue_ones_of_its_tenant_but_not_before_a_more_urgent_class() -> None:
    scheduler = make_scheduler(max_wait_s=10.0, max_inflight=2)
    returned = make_job(900, arrival=5.0, priority_class=1)
    scheduler.submit(returned, 5.0)
    scheduler.schedule(5.0)
    overdue = make_job(1, arrival=0.0, priority_class=1)
    scheduler.submit(overdue, 6.0)
    assert scheduler.requeue(returned.job_id, 20.0)
    urgent = make_job(4000, arrival=20.0)
    scheduler.submit(urgent, 20.0)
    assert drain(scheduler, 20.0) == [urgent.job_id, returned.job_id, overdue.job_id]


def test_two_returned_jobs_go_by_arrival() -> None:
    scheduler = make_scheduler(max_inflight=2)
    jobs = [make_job(10, arrival=0.0), make_job(20, arrival=1.0)]
    for job in jobs:
        scheduler.submit(job, 1.0)
    scheduler.schedule(1.0)
    for job in reversed(jobs):
        scheduler.requeue(job.job_id, 2.0)
    scheduler.submit(make_job(1, arrival=2.0), 2.0)
    assert drain(scheduler, 2.0)[:2] == [job.job_id for job in jobs]
