"""Speculative shortest job first."""

from __future__ import annotations

from typing import ClassVar

from ssjf.core.job import Job
from ssjf.core.policies.base import KeyedPolicy


class Ssjf(KeyedPolicy):
    """key = predicted output tokens × sequences + prefill_weight × prompt tokens (Qiu et al., arXiv 2404.08509).

    The lowest mean completion time that the predictions allow. Long jobs starve under load: only `max_wait` saves them.
    """

    name: ClassVar[str] = "ssjf"
    uses_predictions: ClassVar[bool] = True

    def __init__(self, prefill_weight: float):
        self._prefill_weight = prefill_weight

    def key(self, job: Job) -> float:
        return job.predicted_work + self._prefill_weight * job.prompt_tokens
