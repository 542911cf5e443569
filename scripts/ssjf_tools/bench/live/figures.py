"""From runs to figures: one set a run, and arms against each other over the repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ssjf_tools.bench.live.asking import Run
from ssjf_tools.simulate.metrics import mean_interval
from ssjf_tools.simulate.policies import ORACLE
from ssjf_tools.simulate.tables import Column

BASELINE = "fcfs"
_PERCENTILES = (50, 90, 99)
_BLOCKS, _BLOCK_REQUESTS = 10, 20


@dataclass(frozen=True, slots=True)
class Objective:
    """What a request must keep to count as good, in seconds: time to first token, and mean time between tokens."""

    ttft_s: float = 5.0
    itl_s: float = 0.2


Figures = dict[str, float | None]


def run_figures(run: Run, alone_s: Column, objective: Objective) -> Figures:
    """The figures of one run; see docs/benchmark.md for what each means.

    `alone_s`: seconds that each request takes without waiting, [n]; slowdown is measured against it.
    """
    ok = run.ok
    jct, ttft = (run.end_s - run.arrival_s)[ok], (run.first_s - run.arrival_s)[ok]
    tokens, itl = run.output_tokens[ok], itl_s(run)[ok]
    seconds = float(run.end_s[ok].max() - run.arrival_s[0])
    good = (ttft <= objective.ttft_s) & ~(itl > objective.itl_s)
    figures: Figures = {"requests": float(len(run)), "failed": float((~ok).sum())}
    figures |= _spread("jct_s", jct) | _spread("ttft_s", ttft) | _spread("itl_s", itl)
    figures |= _spread("wait_s", run.queue_s[ok])
    figures["max_wait_s"] = _or_none(run.queue_s[ok], np.max)
    figures["normalised_latency_s"] = float((jct / np.maximum(tokens, 1)).mean())
    figures |= _slowdowns(jct / alone_s[ok], tokens)
    figures["tokens_per_s"] = float(tokens.sum()) / seconds
    figures["goodput_per_s"] = float(good.sum()) / seconds
    figures["good_share"] = float(good.sum()) / len(run)
    figures["seconds"] = seconds
    return figures


def itl_s(run: Run) -> Column:
    """Mean seconds between tokens of each answer, [n]; NaN for a single token."""
    gaps = run.output_tokens - 1
    return np.where(gaps > 0, (run.end_s - run.first_s) / np.maximum(gaps, 1), np.nan)


def alone_seconds(runs: Sequence[Run], prompts: Sequence[NDArray[np.int64]], count: int) -> Column:
    """Seconds of each prompt from leaving the queue to its last token, a mean over all runs that know, [count]."""
    total, seen = np.zeros(count), np.zeros(count)
    for run, which in zip(runs, prompts, strict=True):
        engine_s = run.end_s - run.arrival_s - run.queue_s
        known = np.isfinite(engine_s)
        np.add.at(total, which[known], engine_s[known])
        np.add.at(seen, which[known], 1)
    return np.where(seen > 0, total / np.maximum(seen, 1), np.nan)


def beyond_guarantee(run: Run, baseline: Run, max_wait_s: float) -> int:
    """How many requests waited longer than they may.

    That is the bound, plus what the same request waited under first come, first served, plus the longest answer (it may
    run in the slot that they get).
    """
    longest = float(np.nanmax(run.end_s - run.arrival_s - run.queue_s))
    return int((run.queue_s > max_wait_s + baseline.queue_s + longest).sum())


def block_interval(runs: Sequence[Run], baselines: Sequence[Run]) -> tuple[float, float] | None:
    """A 95 % interval of the change of mean JCT against the baselines, as a fraction, from blocks of each repeat.

    Blocks of consecutive arrivals, ten a repeat, are paired with the same block of the baseline. They are nearly
    independent where a block is long against a wait, and there are more of them than repeats, so the interval is
    narrower than over the repeats. None for blocks of less than 20 requests.
    """
    changes, means = [], []
    for run, baseline in zip(runs, baselines, strict=True):
        own, other = run.end_s - run.arrival_s, baseline.end_s - baseline.arrival_s
        both = np.flatnonzero(np.isfinite(own) & np.isfinite(other))
        if len(both) < _BLOCKS * _BLOCK_REQUESTS:
            return None
        changes += [float((own - other)[block].mean()) for block in np.array_split(both, _BLOCKS)]
        means.append(float(other[both].mean()))
    interval = mean_interval(changes)
    return interval and (interval[0] / fmean(means), interval[1] / fmean(means))


def compare(figures: Mapping[str, Sequence[Figures]]) -> list[dict[str, object]]:
    """One row an arm, from the figures of its repeats: means (`max_wait_s`: the longest), and against fcfs and oracle.

    `mean_jct_vs_fcfs` is a fraction, -0.3 is 30 % lower; its 95 % interval is paired over the repeats.
    """
    baseline, oracle = figures.get(BASELINE), figures.get(ORACLE)
    rows = []
    for arm, own in figures.items():
        row: dict[str, object] = {"policy": arm, "repeats": len(own)}
        row |= {name: _mean([each[name] for each in own]) for name in own[0]}
        waits = [each["max_wait_s"] for each in own]
        row["max_wait_s"] = None if None in waits else max(wait for wait in waits if wait is not None)
        row |= _against(own, baseline, "mean_jct_s", "mean_jct_vs_fcfs")
        row |= _against(own, baseline, "tokens_per_s", "tokens_per_s_vs_fcfs")
        row["share_of_oracle_gain"] = _share(own, baseline, oracle)
        rows.append(row)
    return rows


def _against(own: Sequence[Figures], baseline: Sequence[Figures] | None, name: str, key: str) -> dict[str, object]:
    if baseline is None:
        return {key: None, f"ci95_{key}": None}
    mine, theirs = _values(own, name), _values(baseline, name)
    relative = [a / b - 1 for a, b in zip(mine, theirs, strict=True)]
    return {key: fmean(mine) / fmean(theirs) - 1, f"ci95_{key}": mean_interval(relative)}


def _share(
    own: Sequence[Figures], baseline: Sequence[Figures] | None, oracle: Sequence[Figures] | None
) -> float | None:
    if baseline is None or oracle is None:
        return None
    first, best = fmean(_values(baseline, "mean_jct_s")), fmean(_values(oracle, "mean_jct_s"))
    return (first - fmean(_values(own, "mean_jct_s"))) / (first - best) if first > best else None


def _values(figures: Sequence[Figures], name: str) -> list[float]:
    return [value for each in figures if (value := each[name]) is not None]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _spread(name: str, values: Column) -> Figures:
    known = values[np.isfinite(values)]
    if not len(known):
        return dict.fromkeys((f"mean_{name}", *(f"p{at}_{name}" for at in _PERCENTILES)))
    figures: Figures = {f"mean_{name}": float(known.mean())}
    for at, cut in zip(_PERCENTILES, np.percentile(known, _PERCENTILES), strict=True):
        figures[f"p{at}_{name}"] = float(cut)
    return figures


def _slowdowns(slowdown: Column, tokens: Column) -> Figures:
    """Mean slowdown of each quarter of the requests by true length, shortest first."""
    quarters = np.array_split(np.argsort(tokens, kind="stable"), 4)
    return {f"slowdown_q{at}": _or_none(slowdown[places], np.mean) for at, places in enumerate(quarters, start=1)}


def _or_none(values: Column, summary: Callable[[Column], float]) -> float | None:
    known = values[np.isfinite(values)]
    return float(summary(known)) if len(known) else None
