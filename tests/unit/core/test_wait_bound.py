"""The guarantee: a job waits at most max_wait plus the work that FCFS would also have put before it."""

from __future__ import annotations

import random

import pytest

from ssjf.core.job import Job
from ssjf.core.policies.registry import POLICY_NAMES
from tests.unit.core.build import make_job, make_scheduler

_MAX_WAIT_S = 5.0


def run(policy: str, seed: int, load: float) -> list[tuple[float, float, float]]:
    """One slot, Poisson arrivals. For each job: its wait, the unfinished work at its arrival, the longest service."""
    source = random.Random(seed)
    jobs: list[tuple[Job, float]] = []
    clock = 0.0
    for _ in range(400):
        clock += source.expovariate(load)
        service = min(8.0, source.expovariate(1.0) + 0.01)
        jobs.append((make_job(service * source.lognormvariate(0, 1) * 50, arrival=clock), service))
    service_of = {job.job_id: service for job, service in jobs}
    scheduler = make_scheduler(policy=policy, max_wait_s=_MAX_WAIT_S, guardrail=False, max_queue=1000)
    waits: dict[int, float] = {}
    work: dict[int, float] = {}
    free_at, unfinished, seen_at = 0.0, 0.0, 0.0
    pending = [job for job, _ in jobs]
    running: int | None = None
    while pending or running is not None or len(scheduler):
        if running is not None and (not pending or free_at <= pending[0].arrival):
            now = free_at
            scheduler.finish(running, 1, now, learn=False)
            running = None
        else:
            job = pending.pop(0)
            now = job.arrival
            unfinished = max(0.0, unfinished - (now - seen_at))
            seen_at = now
            work[job.job_id] = unfinished
            unfinished += service_of[job.job_id]
            scheduler.submit(job, now)
        for job in scheduler.schedule(now).dispatch:
            running, free_at = job.job_id, now + service_of[job.job_id]
            waits[job.job_id] = now - job.arrival
    longest = max(service_of.values())
    return [(waits[job.job_id], work[job.job_id], longest) for job, _ in jobs]


@pytest.mark.parametrize("policy", POLICY_NAMES)
@pytest.mark.parametrize("load", [0.9, 1.3])
def test_no_job_waits_longer_than_max_wait_plus_what_fcfs_puts_before_it(policy: str, load: float) -> None:
    for seed in range(3):
        for wait, work_before, longest in run(policy, seed, load):
            # Nothing that runs is preempted: the one job in the slot when a job becomes overdue still ends.
            assert wait <= _MAX_WAIT_S + work_before + longest + 1e-9


def test_without_the_bound_it_would_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}._MAX_WAIT_S", 1e6)
    waits = run("ssjf", 0, 1.3)
    assert any(wait > 5.0 + work_before + longest for wait, work_before, longest in waits)
