"""Shortest job first with linear aging: the default."""

from __future__ import annotations

from typing import ClassVar

from ssjf.core.job import Job
from ssjf.core.policies.base import KeyedPolicy


class SsjfAging(KeyedPolicy):
    """key = predicted work + rate × arrival, work as in `ssjf`, rate in tokens a second.

    A job's claim grows by `rate` tokens for every second that it waits. Since all waiting jobs age alike, their order
    never changes and the arrival can stand in a constant key. It gives up a little of the mean for a far shorter tail;
    rate 0 is `ssjf`, a very large rate is `fcfs`.
    """

    name: ClassVar[str] = "ssjf-aging"
    uses_predictions: ClassVar[bool] = True

    def __init__(self, rate: float, prefill_weight: float):
        self.rate = rate
        self._prefill_weight = prefill_weight

    def key(self, job: Job) -> float:
        work = job.predicted_work + self._prefill_weight * job.prompt_tokens
        return work + self.rate * job.arrival


def default_rate(mean_tokens: float, max_wait_s: float) -> float:
    """Tokens/s at which a job of mean length overtakes a newcomer of length zero after half of `max_wait_s`.

    From mean = rate × max_wait / 2. Without a bound on waiting (inf) there is nothing to age towards: 0. The rate must
    not change while keys of the old rate are in a heap, so the scheduler derives it at construction, at every switch of
    policy or of max_wait, and when the running mean has drifted by half, and re-keys what waits each time.
    """
    return 2.0 * mean_tokens / max_wait_s
