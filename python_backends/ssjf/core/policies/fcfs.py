"""First come, first served."""

from __future__ import annotations

from typing import ClassVar

from ssjf.core.job import Job
from ssjf.core.policies.base import KeyedPolicy


class Fcfs(KeyedPolicy):
    """key = arrival. What Triton does by itself: fair and predictable, but one long answer holds up many short ones."""

    name: ClassVar[str] = "fcfs"

    def key(self, job: Job) -> float:
        return job.arrival
