"""Shortest prompt first."""

from __future__ import annotations

from typing import ClassVar

from ssjf.core.job import Job
from ssjf.core.policies.base import KeyedPolicy


class PromptLength(KeyedPolicy):
    """key = prompt tokens. A control: what one gets without a proxy. On chat often worse than `fcfs`."""

    name: ClassVar[str] = "prompt-length"

    def key(self, job: Job) -> float:
        return float(job.prompt_tokens)
