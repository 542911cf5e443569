"""Policies against each other on the same requests: the rows of the result."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from statistics import fmean

from ssjf_tools.simulate.events import Setup, Timeline, simulate
from ssjf_tools.simulate.metrics import Summary, mean_interval, summarise
from ssjf_tools.simulate.policies import ORACLE, Arm
from ssjf_tools.simulate.sources import Population
from ssjf_tools.simulate.workload import ArrivalProcess, draw

BASELINE = "fcfs"


@dataclass(frozen=True, slots=True)
class Row:
    """One policy with one predictor; times in seconds, means over the seeds (`max_wait_s`: the longest of all).

    `mean_jct_vs_fcfs` is a fraction, -0.339 is 33.9 % lower; None if fcfs was not run. `share_of_oracle_gain` is None
    if fcfs or sjf-oracle was not run. `ci95_mean_jct_vs_fcfs` is paired over the seeds; None for a single one.
    """

    policy: str
    predictor: str | None
    batching: str
    slots: int
    load: float | None
    rate: float | None
    requests: int
    seeds: int
    mean_jct_s: float
    p50_jct_s: float
    p90_jct_s: float
    p99_jct_s: float
    mean_wait_s: float
    max_wait_s: float
    promotions: int
    mean_jct_vs_fcfs: float | None
    share_of_oracle_gain: float | None
    ci95_mean_jct_vs_fcfs: tuple[float, float] | None
    us_per_request: float


@dataclass(frozen=True, slots=True)
class Experiment:
    """Everything but the policies: where requests come from, when, how many, through which machine."""

    population: Population
    process: ArrivalProcess
    setup: Setup
    requests: int
    seeds: int
    load: float | None = None
    first_seed: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """One policy with one predictor over all seeds."""

    arm: Arm
    predictor: str | None
    summaries: list[Summary]
    seconds: float
    first: Timeline  # of the first seed, for plots


Progress = Callable[[str], None]


def variants(arms: Sequence[Arm], predictors: Sequence[str]) -> list[tuple[Arm, str | None]]:
    """Each policy once, those that use predictions once a predictor."""
    return [(arm, name) for arm in arms for name in (predictors if arm.uses_predictions else (None,))]


def run(experiment: Experiment, arms: Sequence[Arm], predictors: Sequence[str], progress: Progress) -> list[Run]:
    """Run every policy on the same request sets, one a seed."""
    seeds = range(experiment.first_seed, experiment.first_seed + experiment.seeds)
    sets = {seed: draw(experiment.population, experiment.process, experiment.requests, seed) for seed in seeds}
    runs = []
    for arm, predictor in variants(arms, predictors):
        progress(f"{arm.label} {predictor or ''}".strip())
        summaries, first, seconds = [], None, 0.0
        for seed, requests in sets.items():
            before = time.process_time()
            timeline = simulate(requests, arm, predictor, experiment.setup, seed)
            seconds += time.process_time() - before
            first = first or timeline
            summaries.append(summarise(timeline))
        assert first is not None  # there is at least one seed
        runs.append(Run(arm, predictor, summaries, seconds, first))
    return runs


def rows_of(experiment: Experiment, runs: Sequence[Run]) -> list[Row]:
    """The runs as rows, each compared with fcfs and the oracle where these were run."""
    means = {run.arm.label: [summary.mean_jct_s for summary in run.summaries] for run in runs}
    return [_row(experiment, run, means.get(BASELINE), means.get(ORACLE)) for run in runs]


def _row(experiment: Experiment, run: Run, baseline: list[float] | None, oracle: list[float] | None) -> Row:
    own = [summary.mean_jct_s for summary in run.summaries]
    relative = [mine / theirs - 1 for mine, theirs in zip(own, baseline, strict=True)] if baseline else None
    share = None
    if baseline and oracle and fmean(baseline) > fmean(oracle):
        share = (fmean(baseline) - fmean(own)) / (fmean(baseline) - fmean(oracle))
    figures = {
        entry.name: fmean(getattr(summary, entry.name) for summary in run.summaries) for entry in fields(Summary)
    }
    figures["max_wait_s"] = max(summary.max_wait_s for summary in run.summaries)
    promotions = round(figures.pop("promotions"))
    return Row(
        policy=run.arm.label,
        predictor=run.predictor,
        batching=experiment.setup.batching,
        slots=experiment.setup.slots,
        load=experiment.load,
        rate=experiment.process.rate,
        requests=experiment.requests,
        seeds=experiment.seeds,
        promotions=promotions,
        mean_jct_vs_fcfs=fmean(own) / fmean(baseline) - 1 if baseline else None,
        share_of_oracle_gain=share,
        ci95_mean_jct_vs_fcfs=mean_interval(relative) if relative else None,
        us_per_request=run.seconds / (experiment.requests * experiment.seeds) * 1e6,
        **figures,
    )
