"""The waiting jobs of one tenant in one priority class: urgent ones first, then the policy's order."""

from __future__ import annotations

from ssjf.core.job import Job
from ssjf.core.ordering import ArrivalLine, KeyedOrder, order_of
from ssjf.core.policies.base import Policy

# How far down the policy's order to look for a job that fits the token budget before the cheapest job is taken.
_LOOKAHEAD = 16
_TRIM_SLACK = 64


def _kv_tokens(job: Job) -> float:
    return job.kv_tokens


class TenantQueue:
    """Three views of the same waiting jobs: by policy, by age (for the bound on waiting), by KV tokens (if budgeted).

    Urgent are jobs that an engine gave back (once, to the very front) and jobs that waited for `max_wait`. An urgent
    job that does not fit the token budget is not passed by any other.
    """

    __slots__ = ("_by_age", "_by_cost", "_deaths", "_order", "_returned", "_returned_line", "_waiting")

    def __init__(self, policy: Policy, budgeted: bool):
        self._waiting: dict[int, Job] = {}
        self._returned: dict[int, Job] = {}
        self._returned_line = ArrivalLine(self._returned)
        self._by_age = ArrivalLine(self._waiting)
        self._order = order_of(policy, self._waiting)
        self._by_cost: KeyedOrder | None = None
        self._deaths = 0  # of entries since the views were last trimmed: jobs that left or moved
        self.set_budgeted(budgeted)

    def __len__(self) -> int:
        return len(self._waiting) + len(self._returned)

    @property
    def entries(self) -> int:
        """Entries in all views, dead ones included: what bounds the memory."""
        by_cost = len(self._by_cost) if self._by_cost is not None else 0
        return len(self._order) + len(self._by_age) + by_cost + len(self._returned_line)

    def push(self, job: Job) -> bool:
        """Add a job. Whether it is the only one."""
        self._order.add(job)
        self._by_age.add(job)
        if self._by_cost is not None:
            self._by_cost.add(job)
        waiting = self._waiting
        waiting[job.job_id] = job
        return len(waiting) == 1 and not self._returned

    def push_front(self, job: Job) -> bool:
        """Put a job back that had been taken: before all others of this tenant. Whether it is the only one."""
        self._returned_line.add(job)
        self._returned[job.job_id] = job
        return len(self) == 1

    def move(self, job: Job) -> None:
        """Give a waiting job the place that its new prediction asks for; one that was put back stays in front."""
        if job.job_id not in self._waiting:
            return
        self._order.move(job)
        if self._by_cost is not None:
            self._by_cost.move(job)
        self._note_death()

    def remove(self, job: Job) -> bool:
        """Take a waiting job out, whatever view it was found in. Whether others wait."""
        waiting, returned = self._waiting, self._returned
        if returned and returned.pop(job.job_id, None) is not None:
            self._returned_line.trim()
        else:
            del waiting[job.job_id]
            self._note_death()
        return bool(waiting or returned)

    def _note_death(self) -> None:
        """Trim the views now and then: one can only have become half dead after about as many deaths as live jobs."""
        self._deaths += 1
        if self._deaths <= len(self._waiting) + _TRIM_SLACK:
            return
        self._deaths = 0
        self._order.trim()
        self._by_age.trim()
        if self._by_cost is not None:
            self._by_cost.trim()

    def urgent(self, arrived_by: float) -> Job | None:
        """The job that no other of this tenant may pass: one that came back, else the oldest if it is overdue."""
        if self._returned:
            return self._returned_line.first()
        return self._by_age.first_of(arrived_by)

    def first(self, now: float, arrived_by: float) -> Job | None:
        """The job that goes next where room is not limited: an urgent one, else the policy's first."""
        if self._returned:
            return self._returned_line.first()
        return self._by_age.first_of(arrived_by) or self._order.first(now)

    def oldest_arrival(self) -> float:
        """Arrival of the job that has waited longest; inf if none waits."""
        heads = (self._by_age.first(), self._returned_line.first())
        return min((job.arrival for job in heads if job is not None), default=float("inf"))

    def best(self, now: float, room: float) -> Job | None:
        """The policy's first job that fits into `room` KV tokens; None if none of them fits.

        Looks only a few jobs down the order; if those are all too big, the cheapest job goes: it is found in O(log n)
        and no slot stays empty for want of a search.
        """
        if self._by_cost is None:
            return self._order.first(now)
        cheapest = self._by_cost.first()
        if cheapest is None or cheapest.kv_tokens > room:
            return None
        return self._order.fitting(now, room, _LOOKAHEAD) or cheapest

    def set_policy(self, policy: Policy) -> None:
        self._order = order_of(policy, self._waiting)

    def set_budgeted(self, budgeted: bool) -> None:
        """Whether `best` will be asked for a limited room."""
        if budgeted != (self._by_cost is not None):
            self._by_cost = KeyedOrder(self._waiting, _kv_tokens) if budgeted else None
