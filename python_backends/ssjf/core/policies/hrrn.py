"""Highest response ratio next."""

from __future__ import annotations

import math
from typing import ClassVar

from ssjf.core.job import Job
from ssjf.core.policies.base import DynamicPolicy

# Jobs whose predicted work agrees within this share are one group: about 100 groups up to 10,000 tokens.
_GROUP_WIDTH = 0.1


class Hrrn(DynamicPolicy):
    """score = -(waiting time / predicted work): the highest response ratio goes first (Hansen, 1971).

    The response ratio (wait + service) / service orders as wait / service, in whatever unit work is counted. Starves
    nobody and needs no rate to be chosen; short jobs gain less than under `ssjf`.

    The order changes with time, so no heap can hold it. Jobs of nearly equal work form a group and go by arrival, which
    is exact for equal work and off by at most the group's width otherwise, far below any predictor's error.
    """

    name: ClassVar[str] = "hrrn"
    uses_predictions: ClassVar[bool] = True

    def __init__(self, prefill_weight: float):
        self._prefill_weight = prefill_weight

    def group(self, job: Job) -> int:
        return int(math.log(self._work(job)) / _GROUP_WIDTH)

    def score(self, job: Job, now: float) -> float:
        return (job.arrival - now) / self._work(job)

    def _work(self, job: Job) -> float:
        # At least one token: a job that may answer with nothing still takes a step.
        return max(1.0, job.work(job.predicted_tokens, self._prefill_weight))
