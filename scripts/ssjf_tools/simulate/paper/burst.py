"""The paper's own experiment: bursts of 50 jobs, and what its figures mean.

After James-QiuHaoran/LLM-serving-with-proxy-models, model-serving/: a job takes 0.1 s + 0.02 s a token whatever the
batch. What the paper calls dynamic batching ("static" in its code) is a group that ends with its longest job; with
continuous batching single slots are refilled. Jobs arrive at full seconds, a Poisson number at each; starvation.py has
the rule that promotes the oldest. One thing of its code is left out: it waits some seconds for a group to fill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ssjf_tools.simulate.events import Setup, Timeline, simulate
from ssjf_tools.simulate.experiment import variants
from ssjf_tools.simulate.metrics import mean_interval
from ssjf_tools.simulate.paper.starvation import PaperSimulation
from ssjf_tools.simulate.policies import parse_arm
from ssjf_tools.simulate.service import PAPER
from ssjf_tools.simulate.sources import Population
from ssjf_tools.simulate.workload import ArrivalProcess, draw

JOBS = 50
RATES = tuple(range(1, 11))
# The paper's three settings with the batch size of its code's default.
SETUPS = {
    "none": Setup("none", 1, PAPER),
    "dynamic": Setup("dynamic", 2, PAPER, together=True),
    "continuous": Setup("continuous", 2, PAPER),
}


@dataclass(frozen=True, slots=True)
class BurstRow:
    """One policy at one rate (None: over all rates); changes against fcfs are fractions, paired by run.

    `completions_at_25_vs_fcfs`: the paper's "throughput", completions per second up to the moment when a quarter of the
    jobs is done. It is no capacity: over all 50 jobs every policy completes as many per second.
    """

    batching: str
    slots: int
    rate: int | None
    policy: str
    predictor: str | None
    runs: int
    mean_jct_vs_fcfs: float
    ci95_mean_jct_vs_fcfs: tuple[float, float] | None
    completions_at_25_vs_fcfs: float
    completions_at_100_vs_fcfs: float


@dataclass(frozen=True, slots=True)
class _Outcome:
    mean_jct_s: float
    per_s_at_25: float
    per_s_at_100: float


def run_bursts(population: Population, runs: int, seed: int, progress: Callable[[str], None]) -> list[BurstRow]:
    """Every batching mode, rate, policy and predictor, `runs` times each on the same jobs."""
    rows = []
    for batching in SETUPS:
        progress(f"bursts, batching {batching}")
        rows.extend(_rows_of_mode(population, batching, runs, seed))
    return rows


def _rows_of_mode(population: Population, batching: str, runs: int, seed: int) -> list[BurstRow]:
    arms = [parse_arm(name, None) for name in ("fcfs", "ssjf", "sjf-oracle")]
    rows = []
    everything: dict[tuple[str, str | None], list[tuple[_Outcome, _Outcome]]] = {}
    for rate in RATES:
        process = ArrivalProcess("per-second", float(rate))
        sets = [draw(population, process, JOBS, seed + 1000 * rate + run) for run in range(runs)]
        baseline = [_outcome(simulate(requests, arms[0], None, SETUPS[batching])) for requests in sets]
        for arm, predictor in variants(arms[1:], list(population.predicted)):
            own = [_outcome(PaperSimulation(requests, arm, predictor, SETUPS[batching]).run()) for requests in sets]
            pairs = list(zip(own, baseline, strict=True))
            everything.setdefault((arm.label, predictor), []).extend(pairs)
            rows.append(_row(batching, rate, arm.label, predictor, pairs))
    totals = [_row(batching, None, policy, predictor, pairs) for (policy, predictor), pairs in everything.items()]
    return rows + totals


def _outcome(timeline: Timeline) -> _Outcome:
    ends = np.sort(timeline.end_s)
    quarter = len(ends) // 4
    return _Outcome(float(timeline.completion_s.mean()), quarter / float(ends[quarter]), len(ends) / float(ends[-1]))


def _row(
    batching: str, rate: int | None, policy: str, predictor: str | None, pairs: Sequence[tuple[_Outcome, _Outcome]]
) -> BurstRow:
    changes = [own.mean_jct_s / base.mean_jct_s - 1 for own, base in pairs]
    return BurstRow(
        batching=batching,
        slots=SETUPS[batching].slots,
        rate=rate,
        policy=policy,
        predictor=predictor,
        runs=len(pairs),
        mean_jct_vs_fcfs=fmean(own.mean_jct_s for own, _ in pairs) / fmean(base.mean_jct_s for _, base in pairs) - 1,
        ci95_mean_jct_vs_fcfs=mean_interval(changes),
        completions_at_25_vs_fcfs=_ratio([(own.per_s_at_25, base.per_s_at_25) for own, base in pairs]),
        completions_at_100_vs_fcfs=_ratio([(own.per_s_at_100, base.per_s_at_100) for own, base in pairs]),
    )


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return fmean(own for own, _ in pairs) / fmean(base for _, base in pairs) - 1
