"""Shortest expected processing time with a penalty for a heavy tail."""

from __future__ import annotations

from typing import ClassVar

from ssjf.core.job import Job
from ssjf.core.policies.base import KeyedPolicy


class SeptTail(KeyedPolicy):
    """key = (mean + β × mean of the upper tail) × sequences + prefill_weight × prompt tokens.

    Both means are of the predicted distribution. Of two jobs with one mean, the one that may turn out very long goes
    later. Needs a predictor that gives distributions; with point predictions it is `ssjf`. Unbounded as `ssjf`.
    """

    name: ClassVar[str] = "sept-tail"
    uses_predictions: ClassVar[bool] = True

    def __init__(self, beta: float, prefill_weight: float):
        self._beta = beta
        self._prefill_weight = prefill_weight

    def key(self, job: Job) -> float:
        tokens = job.predicted_tokens + self._beta * job.tail_tokens
        return tokens * job.sequences + self._prefill_weight * job.prompt_tokens
