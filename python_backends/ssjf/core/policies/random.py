"""Random order."""

from __future__ import annotations

from typing import ClassVar

from ssjf.core.job import Job
from ssjf.core.policies.base import KeyedPolicy

_MASK = 2**64 - 1


class Random(KeyedPolicy):
    """key = a hash of seed and job id, uniform in [0, 1). A control: the mean of `fcfs`, with a longer tail.

    A hash instead of a generator: a job keeps its place when the queue is rebuilt, and runs repeat.
    """

    name: ClassVar[str] = "random"

    def __init__(self, seed: int):
        self._seed = seed

    def key(self, job: Job) -> float:
        # SplitMix64 (Steele, Lea and Flood, 2014).
        bits = (self._seed + (job.job_id + 1) * 0x9E3779B97F4A7C15) & _MASK
        bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((bits ^ (bits >> 31)) >> 11) * 2.0**-53
