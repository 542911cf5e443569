"""The waiting queue: priority classes, in them tenants by fair share, in those overdue jobs, then the policy."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from ssjf.core.fairshare import FairShare
from ssjf.core.job import MOST_DIGITS, Job, LengthPrediction
from ssjf.core.ordering import KeyedOrder
from ssjf.core.policies.base import Policy
from ssjf.core.policies.fcfs import Fcfs
from ssjf.core.tenant import TenantQueue

# Empty queues of tenants that are kept for their next job, besides one for each tenant that waits. Tenants' names come
# from clients, so empty queues must be swept out some time; a sweep is O(tenants), so not each time.
_IDLE_TENANTS = 64


class PriorityClass:
    """The waiting jobs of one priority class, by tenant, with their number and predicted work.

    `by_size`: the work of the jobs whose predicted length has that many binary digits. Sums of floats that come and go:
    they start anew when the last job has left, so that no rounding errors stay.
    """

    def __init__(self, weights: Mapping[str, float]):
        self.tenants: dict[str, TenantQueue] = {}
        self.shares = FairShare(weights)
        self.length = 0
        self.by_size = [0.0] * (MOST_DIGITS + 1)

    @property
    def backlog(self) -> float:
        """Predicted output tokens of all who wait."""
        return sum(self.by_size)


class WaitingQueue:
    """All waiting jobs. O(log n) for each call on average; a change of policy is O(n).

    `weights`: tenants' shares, 1 for those not named. `budgeted`: whether `take` is called with a limited room, which
    needs one more index.
    """

    def __init__(self, policy: Policy, weights: Mapping[str, float], *, max_wait_s: float, budgeted: bool):
        self._policy = policy
        self._weights = weights
        self._budgeted = budgeted
        self.max_wait_s = max_wait_s
        self.size_bytes = 0
        # Jobs that were taken because they had waited for max_wait_s.
        self.promotions = 0
        # All that waits, by id: to be read by everyone, to be changed by this class.
        self.jobs: dict[int, Job] = {}
        self.due: dict[int, Job] = {}  # likewise, those with a start deadline
        self._deadlines = KeyedOrder(self.due, _deadline)
        self._classes: dict[int, PriorityClass] = {}  # every class that was ever used, the most urgent first

    def __len__(self) -> int:
        return len(self.jobs)

    def __contains__(self, job_id: int) -> bool:
        return job_id in self.jobs

    def __iter__(self) -> Iterator[Job]:
        return iter(self.jobs.values())

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._policy

    @property
    def entries(self) -> int:
        """Entries of all indexes, dead ones included: what bounds the memory."""
        tenants = (queue for level in self._classes.values() for queue in level.tenants.values())
        return len(self._deadlines) + sum(queue.entries for queue in tenants)

    def push(self, job: Job) -> None:
        """Add a job; its id must not be waiting."""
        level, queue = self._enter(job)
        if queue.push(job):
            level.shares.enter(job.tenant)

    def push_front(self, job: Job) -> None:
        """Put back a job that was taken, before all others of its tenant and class."""
        level, queue = self._enter(job)
        if queue.push_front(job):
            level.shares.enter(job.tenant)

    def take(self, now: float, room: float) -> Job | None:
        """Remove and return the job that goes next into `room` KV tokens; None if none may.

        An urgent job (overdue, or given back by the engine) whose turn it is and that does not fit reserves the room:
        nothing that comes after it is looked at.
        """
        arrived_by = now - self.max_wait_s
        for level in self._classes.values():
            if not level.length:
                continue
            if room == math.inf:
                job = level.tenants[level.shares.next()].first(now, arrived_by)
            else:
                job = _first_for(room, level, now, arrived_by)
            if job is None:
                continue
            if job.kv_tokens > room:
                return None
            if job.arrival <= arrived_by:
                self.promotions += 1
            self._drop(job, level, level.tenants[job.tenant])
            return job
        return None

    def repredict(self, job_id: int, prediction: LengthPrediction) -> Job | None:
        """Put a job where it would be had `prediction` come with it; None if it does not wait."""
        job = self.jobs.get(job_id)
        if job is not None:
            level = self._classes[job.priority_class]
            level.by_size[job.digits] -= job.predicted_work
            job.expect(prediction)
            level.by_size[job.digits] += job.predicted_work
            level.tenants[job.tenant].move(job)
        return job

    def set_start_deadline(self, job: Job, deadline: float) -> None:
        """Change when a waiting job that has a start deadline must have started."""
        job.start_deadline = deadline
        self._deadlines.move(job)
        self._deadlines.trim()

    def remove(self, job_id: int) -> Job | None:
        """Take a job out of the queue; None if it does not wait."""
        job = self.jobs.get(job_id)
        if job is not None:
            level = self._classes[job.priority_class]
            self._drop(job, level, level.tenants[job.tenant])
        return job

    def _drop(self, job: Job, level: PriorityClass, queue: TenantQueue) -> None:
        del self.jobs[job.job_id]
        others = queue.remove(job)
        self.size_bytes -= job.size_bytes
        level.length -= 1
        level.by_size[job.digits] -= job.predicted_work
        if job.start_deadline is not None:
            del self.due[job.job_id]
            self._deadlines.trim()
        if not others:
            self._leave(level, job)

    def expire(self, now: float) -> list[Job]:
        """Remove and return the jobs whose start deadline is at `now` or before, the earliest first."""
        expired: list[Job] = []
        while (when := self.next_deadline()) is not None and when <= now:
            job = self._deadlines.first()
            assert job is not None
            self.remove(job.job_id)
            expired.append(job)
        return expired

    def next_deadline(self) -> float | None:
        """The earliest start deadline among the waiting jobs."""
        job = self._deadlines.first()
        return job.start_deadline if job is not None else None

    def ahead(self, job: Job) -> float:
        """Predicted output tokens that wait and will surely go before a newcomer, fewer rather than more.

        Those of more urgent classes; in its own, as long as no other tenant takes turns there: under `fcfs` all, under
        policies that go by predictions those that are shorter by a power of two.
        """
        urgent = sum(level.backlog for urgency, level in self._classes.items() if urgency < job.priority_class)
        level = self._classes.get(job.priority_class)
        if level is None or level.shares.present != 1 or not level.tenants.get(job.tenant):
            return urgent
        if self._policy.uses_predictions:
            return urgent + sum(level.by_size[: job.digits])
        return urgent + level.backlog * isinstance(self._policy, Fcfs)

    def charge(self, job: Job, work: float) -> None:
        """Charge a job's tenant with `work` output-token units that are about to be served."""
        self._classes[job.priority_class].shares.charge(job.tenant, work)

    def correct(self, job: Job, difference: float) -> None:
        """Add to what a job's tenant was charged."""
        self._classes[job.priority_class].shares.correct(job.tenant, difference)

    def set_policy(self, policy: Policy) -> None:
        """Re-order everything that waits. O(n)."""
        self._policy = policy
        for queue in self._tenant_queues():
            queue.set_policy(policy)

    def set_budgeted(self, budgeted: bool) -> None:
        """Whether `take` will be called with a limited room. O(n) when it changes."""
        self._budgeted = budgeted
        for queue in self._tenant_queues():
            queue.set_budgeted(budgeted)

    def oldest_arrival(self, now: float) -> float:
        """Arrival of the job that has waited longest; `now` if none waits."""
        return min((now, *(queue.oldest_arrival() for queue in self._tenant_queues())))

    def lengths(self) -> dict[int, int]:
        """Waiting jobs by priority class, for every class that was ever used."""
        return {urgency: level.length for urgency, level in self._classes.items()}

    def backlogs(self) -> dict[int, float]:
        """Predicted output tokens that wait, by priority class."""
        return {urgency: level.backlog for urgency, level in self._classes.items()}

    def _enter(self, job: Job) -> tuple[PriorityClass, TenantQueue]:
        level = self._classes.get(job.priority_class)
        if level is None:
            self._classes[job.priority_class] = level = PriorityClass(self._weights)
            self._classes = dict(sorted(self._classes.items()))
        queue = level.tenants.get(job.tenant)
        if queue is None:
            queue = level.tenants[job.tenant] = TenantQueue(self._policy, self._budgeted)
        self.jobs[job.job_id] = job
        if job.start_deadline is not None:
            self.due[job.job_id] = job
            self._deadlines.add(job)
        self.size_bytes += job.size_bytes
        level.length += 1
        level.by_size[job.digits] += job.predicted_work
        return level, queue

    def _leave(self, level: PriorityClass, job: Job) -> None:
        """The last job of a tenant left, perhaps the last of its class."""
        level.shares.leave(job.tenant)
        if len(level.tenants) > 2 * level.shares.present + _IDLE_TENANTS:
            level.tenants = {tenant: queue for tenant, queue in level.tenants.items() if queue}
        if not level.length:
            level.by_size = [0.0] * (MOST_DIGITS + 1)

    def _tenant_queues(self) -> list[TenantQueue]:
        return [queue for level in self._classes.values() for queue in level.tenants.values()]


def _first_for(room: float, level: PriorityClass, now: float, arrived_by: float) -> Job | None:
    """The job that goes next into a limited room: one that fits, or an urgent one that the room is to be kept for."""
    for tenant in level.shares.in_turn():  # one whose turn it is may have nothing that fits
        queue = level.tenants[tenant]
        job = queue.urgent(arrived_by) or queue.best(now, room)
        if job is not None:
            return job
    return None


def _deadline(job: Job) -> float:
    return float("inf") if job.start_deadline is None else job.start_deadline
