"""From timelines to the figures of a row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssjf_tools.simulate.events import Timeline

# Two-sided 95 % quantiles of Student's t by degrees of freedom; beyond, the normal's is near enough.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of one policy on one request set, in seconds."""

    mean_jct_s: float
    p50_jct_s: float
    p90_jct_s: float
    p99_jct_s: float
    mean_wait_s: float
    max_wait_s: float
    promotions: int


def summarise(timeline: Timeline) -> Summary:
    """The figures of a run, all its requests counted."""
    completion, wait = timeline.completion_s, timeline.wait_s
    p50, p90, p99 = np.percentile(completion, (50, 90, 99))
    return Summary(
        mean_jct_s=float(completion.mean()),
        p50_jct_s=float(p50),
        p90_jct_s=float(p90),
        p99_jct_s=float(p99),
        mean_wait_s=float(wait.mean()),
        max_wait_s=float(wait.max()),
        promotions=timeline.promotions,
    )


def mean_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % confidence interval of the mean of independent values; None for a single one."""
    count = len(values)
    if count < 2:
        return None
    mean = math.fsum(values) / count
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = (_T95[count - 2] if count - 2 < len(_T95) else 1.96 + 2.5 / count) * deviation / math.sqrt(count)
    return mean - half, mean + half
