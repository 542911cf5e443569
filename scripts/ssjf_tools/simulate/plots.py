"""Plots of simulated runs. matplotlib is not in every environment: `scripts/simulate --plots` and others install it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.simulate.experiment import Run
from ssjf_tools.simulate.workload import RequestSet

_POINTS = 500


def available() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def check_available() -> None:
    """Raise ValueError, with the command that installs it, where matplotlib is missing."""
    if not available():
        lock = CHECKOUT / "requirements" / "plots.lock"
        command = shlex.join([sys.executable, "-m", "pip", "install", "--no-deps", "-r", str(lock)])
        raise ValueError(f"--plots needs matplotlib, which {sys.prefix} does not have; this installs it: {command}")


def new_figure(title: str, x_label: str, y_label: str) -> tuple[Any, Any]:
    """An empty figure and its axes."""
    import matplotlib as mpl  # noqa: PLC0415  (optional)

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    return figure, axes


def save(figure: Any, path: Path) -> Path:
    """Write a figure as PNG and let go of it."""
    from matplotlib import pyplot  # noqa: PLC0415

    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return path


def draw_runs(folder: Path, runs: Sequence[Run], requests: RequestSet) -> list[Path]:
    """Of the first seed: completion times as distributions, the queue over time, waits by true length."""
    return [_completion(folder, runs), _queue(folder, runs), _waits(folder, runs, requests)]


def _label(run: Run) -> str:
    return f"{run.arm.label} {run.predictor or ''}".strip()


def _completion(folder: Path, runs: Sequence[Run]) -> Path:
    figure, axes = new_figure("Job completion time", "seconds", "share of requests")
    shares = np.linspace(0, 1, _POINTS)
    for run in runs:
        axes.plot(np.quantile(run.first.completion_s, shares), shares, label=_label(run))
    axes.set_xscale("log")
    axes.legend()
    return save(figure, folder / "completion.png")


def _queue(folder: Path, runs: Sequence[Run]) -> Path:
    figure, axes = new_figure("Waiting requests", "seconds", "requests")
    for run in runs:
        times = np.linspace(0, run.first.end_s.max(), _POINTS)
        started = np.searchsorted(np.sort(run.first.start_s), times, side="right")
        axes.plot(times, np.searchsorted(run.first.arrival_s, times, side="right") - started, label=_label(run))
    axes.legend()
    return save(figure, folder / "queue.png")


def _waits(folder: Path, runs: Sequence[Run], requests: RequestSet) -> Path:
    figure, axes = new_figure("Mean wait by true length", "output tokens (decile means)", "seconds")
    deciles = np.array_split(np.argsort(requests.output_tokens, kind="stable"), 10)
    deciles = [places for places in deciles if len(places)]
    lengths = [requests.output_tokens[places].mean() for places in deciles]
    for run in runs:
        axes.plot(lengths, [run.first.wait_s[places].mean() for places in deciles], marker="o", label=_label(run))
    axes.set_yscale("symlog", linthresh=0.1)
    axes.legend()
    return save(figure, folder / "waits.png")
