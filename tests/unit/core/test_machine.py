"""Hypothesis drives a Scheduler through interleavings of events and checks it against a plain account of all jobs."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ssjf.core.admission import Capacity
from ssjf.core.errors import DeadlineExceeded
from ssjf.core.job import Job, LengthPrediction
from ssjf.core.policies.registry import POLICY_NAMES
from ssjf.core.scheduler import Scheduler
from tests.unit.core.build import make_job, make_scheduler

BATCHING = ("continuous", "dynamic", "none")
limits = st.fixed_dictionaries(
    {},
    optional={
        "max_inflight": st.integers(1, 4),
        "over_dispatch": st.integers(0, 2),
        "max_inflight_tokens": st.none() | st.integers(50, 600),
        "batching": st.sampled_from(BATCHING),
        "batch_size": st.integers(1, 4),
        "max_wait_s": st.sampled_from([1.0, 5.0, math.inf]),
    },
)


class SchedulerMachine(RuleBasedStateMachine):
    """`waiting`, `running` and `over` partition all jobs that were ever submitted."""

    scheduler: Scheduler

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.waiting: dict[int, Job] = {}
        self.running: dict[int, Job] = {}
        self.held: dict[int, int] = {}  # KV tokens of running jobs, at least
        self.returned: set[int] = set()
        self.cancelled: set[int] = set()
        self.over: set[int] = set()

    @initialize(policy=st.sampled_from(POLICY_NAMES), changes=limits)
    def start(self, policy: str, changes: dict[str, Any]) -> None:
        self.scheduler = make_scheduler(policy=policy, **({"max_inflight": 2, "max_wait_s": 5.0} | changes))

    # -- events ----------------------------------------------------------------------------------------------------

    @rule(
        predicted=st.floats(0, 300),
        prompt=st.integers(0, 100),
        sequences=st.integers(1, 2),
        urgency=st.integers(0, 1),
        tenant=st.sampled_from("ab"),
        delay=st.sampled_from([0.0, 0.0, 0.5]),
        patience=st.none() | st.floats(0.1, 10),
        end_too=st.booleans(),
    )
    def submit(
        self,
        predicted: float,
        prompt: int,
        sequences: int,
        urgency: int,
        tenant: str,
        delay: float,
        patience: float | None,
        end_too: bool,
    ) -> None:
        deadline = None if patience is None else self.now + patience
        job = make_job(
            predicted,
            arrival=self.now - delay,
            prompt_tokens=prompt,
            sequences=sequences,
            priority_class=urgency,
            tenant=tenant,
            max_tokens=256,
            start_deadline=deadline,
            end_deadline=deadline if end_too else None,
        )
        known = self.scheduler.snapshot(self.now)
        try:
            self.scheduler.submit(job, self.now)
        except DeadlineExceeded:
            assert self.scheduler.snapshot(self.now).rejected == known.rejected + 1
            # Nobody is refused for what is expected of it while it would delay no one.
            assert deadline is not None
            assert known.queue_length or known.in_flight
            return
        assert deadline is None or (job.start_deadline is not None and self.now < job.start_deadline <= deadline)
        self.waiting[job.job_id] = job

    @rule(seconds=st.floats(0, 4))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(spare=st.none() | st.integers(0, 3))
    def schedule(self, spare: int | None = None) -> None:
        settings = self.scheduler.settings
        inflight_before = len(self.running)
        plan = self.scheduler.schedule(self.now, None if spare is None else Capacity(spare))
        assert spare is None or len(plan.dispatch) <= spare
        due = [
            job for job in self.waiting.values() if job.start_deadline is not None and job.start_deadline <= self.now
        ]
        assert sorted(job.job_id for job in plan.expired) == sorted(job.job_id for job in due)
        for job in plan.expired:
            del self.waiting[job.job_id]
            self.over.add(job.job_id)
        for job in plan.dispatch:
            self.check_turn(job)
            del self.waiting[job.job_id]  # KeyError: dispatched twice, or never submitted
            self.running[job.job_id] = job
            self.held[job.job_id] = job.kv_tokens
            if settings.max_inflight_tokens is not None:
                assert len(self.running) == 1 or sum(self.held.values()) <= settings.max_inflight_tokens
        slots = {
            "continuous": settings.max_inflight + settings.over_dispatch,
            "dynamic": min(settings.max_inflight, settings.batch_size),
            "none": 1,
        }[settings.batching]
        if plan.dispatch:
            assert len(self.running) <= slots
            assert settings.batching == "continuous" or inflight_before == 0
        if spare is None or len(plan.dispatch) < spare:
            self.check_work_conservation(slots)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), learn=st.booleans())
    def finish(self, data: st.DataObject, learn: bool) -> None:
        job = data.draw(st.sampled_from(list(self.running.values())))
        self.scheduler.finish(job.job_id, data.draw(st.integers(0, 512)), self.now, learn=learn)
        self.leave(job)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), share=st.floats(0, 1))
    def progress(self, data: st.DataObject, share: float) -> None:
        job = data.draw(st.sampled_from(list(self.running.values())))
        tokens = int(share * job.max_tokens * job.sequences)
        self.scheduler.progress(job.job_id, tokens, self.now)
        self.held[job.job_id] = max(self.held[job.job_id], job.prompt_tokens + tokens)

    @precondition(lambda self: self.running or self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        job_id = data.draw(st.sampled_from([*self.running, *self.waiting]))
        where = self.scheduler.cancel(job_id, self.now)
        assert where == ("running" if job_id in self.running else "waiting")
        if where == "waiting":
            del self.waiting[job_id]
            self.over.add(job_id)
        else:
            self.cancelled.add(job_id)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def requeue(self, data: st.DataObject) -> None:
        job = data.draw(st.sampled_from(list(self.running.values())))
        again = self.scheduler.requeue(job.job_id, self.now)
        assert again == (job.job_id not in self.returned and job.job_id not in self.cancelled)
        self.leave(job)
        if again:
            self.over.remove(job.job_id)
            self.waiting[job.job_id] = job
            self.returned.add(job.job_id)

    @precondition(lambda self: self.waiting)
    @rule(data=st.data(), predicted=st.floats(0, 300))
    def repredict(self, data: st.DataObject, predicted: float) -> None:
        job = data.draw(st.sampled_from(list(self.waiting.values())))
        assert self.scheduler.repredict(job.job_id, LengthPrediction(predicted, predicted), self.now) is job

    @rule(policy=st.sampled_from(POLICY_NAMES))
    def switch(self, policy: str) -> None:
        self.scheduler.set_policy(policy, self.now)

    @rule(changes=limits)
    def change_limits(self, changes: dict[str, Any]) -> None:
        self.scheduler.set_limits(self.now, **changes)

    # -- what must hold ------------------------------------------------------------------------------------------------

    def leave(self, job: Job) -> None:
        del self.running[job.job_id]
        del self.held[job.job_id]
        self.over.add(job.job_id)

    def is_urgent(self, job: Job) -> bool:
        return job.job_id in self.returned or job.arrival <= self.now - self.scheduler.settings.max_wait_s

    def room(self) -> float:
        budget = self.scheduler.settings.max_inflight_tokens
        if budget is None or not self.running:
            return math.inf
        return budget - self.scheduler.snapshot(self.now).tokens_in_flight

    def check_turn(self, job: Job) -> None:
        """Once overdue, nobody younger of the same tenant and class goes before it; returned ones go first of all."""
        if job.job_id in self.returned:
            return
        rivals = [
            rival
            for rival in self.waiting.values()
            if rival is not job and (rival.priority_class, rival.tenant) == (job.priority_class, job.tenant)
        ]
        assert not any(rival.job_id in self.returned for rival in rivals)
        for rival in rivals:
            if self.is_urgent(rival):
                assert (job.arrival, job.job_id) < (rival.arrival, rival.job_id)

    def check_work_conservation(self, slots: int) -> None:
        """No slot is left free while an admissible job waits, reservations of urgent jobs apart."""
        continuous = self.scheduler.settings.batching == "continuous"
        if len(self.running) >= slots or not (continuous or not self.running):
            return
        room = self.room()
        for urgency in sorted({job.priority_class for job in self.waiting.values()}):
            level = [job for job in self.waiting.values() if job.priority_class == urgency]
            if any(self.is_urgent(job) and job.kv_tokens > room for job in level):
                return
            assert all(job.kv_tokens > room for job in level)

    @invariant()
    def every_job_is_in_one_place(self) -> None:
        if not hasattr(self, "scheduler"):
            return
        state = self.scheduler.snapshot(self.now)
        assert state.queue_length == len(self.waiting) == sum(state.queue_lengths.values())
        assert state.in_flight == len(self.running)
        assert state.tokens_in_flight >= sum(self.held.values())
        backlog = sum(job.predicted_tokens * job.sequences for job in self.waiting.values())
        assert math.isclose(sum(state.backlog_tokens.values()), backlog, abs_tol=1e-6)
        deadlines = [job.start_deadline for job in self.waiting.values() if job.start_deadline is not None]
        assert self.scheduler.next_event(self.now) == min(deadlines, default=None)
        assert state.dispatched == state.finished + state.requeued + state.in_flight

    def teardown(self) -> None:
        """Whatever happened, the scheduler never hangs: everything that waits comes out by finishing what runs."""
        if not hasattr(self, "scheduler"):
            return
        for _ in range(2 * len(self.waiting) + len(self.running) + 1):
            for job in list(self.running.values()):
                self.scheduler.finish(job.job_id, 1, self.now)
                self.leave(job)
            self.schedule()
        assert not self.waiting
        assert not self.running


TestScheduler = SchedulerMachine.TestCase
TestScheduler.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
