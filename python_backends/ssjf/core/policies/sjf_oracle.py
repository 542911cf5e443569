"""Shortest job first by what the client knows."""

from __future__ import annotations

from typing import ClassVar

from ssjf.core.job import Job
from ssjf.core.policies.base import KeyedPolicy


class SjfOracle(KeyedPolicy):
    """key = the client's `expected_tokens` × sequences + prefill_weight × prompt tokens.

    For benchmarks that replay known lengths: the gain that a perfect predictor would bring. The hint is clamped as a
    prediction is; a job without one goes by its prediction. Clients that lie jump the queue.
    """

    name: ClassVar[str] = "sjf-oracle"

    def __init__(self, prefill_weight: float):
        self._prefill_weight = prefill_weight

    def key(self, job: Job) -> float:
        tokens = job.predicted_tokens if job.expected_tokens is None else job.clamp(job.expected_tokens)
        return tokens * job.sequences + self._prefill_weight * job.prompt_tokens
