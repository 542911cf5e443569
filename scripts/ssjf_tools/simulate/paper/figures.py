"""Tables and plots of the paper's experiments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ssjf_tools.simulate.experiment import Row
from ssjf_tools.simulate.paper.burst import BurstRow
from ssjf_tools.simulate.plots import new_figure, save

_BURST_HEAD = (
    f"{'batching':<12} {'policy':<24} {'mean JCT':>9} {'95 %':>7} {'at rates 1 to 10/s':>20} "
    f"{'done/s at 25 %':>15} {'at 100 %':>9}"
)


def label(policy: str, predictor: str | None) -> str:
    """Policy and predictor in one name."""
    return f"{policy} {predictor}" if predictor else policy


def burst_table(rows: Sequence[BurstRow]) -> str:
    """One line a mode and policy: mean JCT against fcfs over the rates, and its range; the paper's other figure."""
    lines = [_BURST_HEAD]
    for total in (row for row in rows if row.rate is None):
        same = (total.batching, total.policy, total.predictor)
        changes = [
            row.mean_jct_vs_fcfs for row in rows if row.rate and (row.batching, row.policy, row.predictor) == same
        ]
        low, high = total.ci95_mean_jct_vs_fcfs or (0.0, 0.0)
        lines.append(
            f"{total.batching:<12} {label(total.policy, total.predictor):<24} {total.mean_jct_vs_fcfs:>+9.1%} "
            f"{'±' + format((high - low) / 2, '.1%'):>7} {f'{min(changes):+.1%} … {max(changes):+.1%}':>20} "
            f"{total.completions_at_25_vs_fcfs:>+15.0%} {total.completions_at_100_vs_fcfs:>+9.1%}"
        )
    return "\n".join(lines)


def steady_table(rows: Sequence[Row], what: str = "mean_jct_vs_fcfs") -> str:
    """For each policy a block of slots (down) and loads (across): mean JCT against fcfs, or the longest wait."""
    loads = sorted({row.load for row in rows if row.load is not None})
    blocks = []
    for name in dict.fromkeys(label(row.policy, row.predictor) for row in rows):
        own = {(row.slots, row.load): getattr(row, what) for row in rows if label(row.policy, row.predictor) == name}
        lines = [f"{name:<18}" + "".join(f"{f'load {load:g}':>11}" for load in loads)]
        for slots in sorted({row.slots for row in rows}):
            cells = "".join(f"{_cell(own[slots, load], what):>11}" for load in loads)
            lines.append(f"{slots:>4} slots        {cells}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _cell(value: float | None, what: str) -> str:
    if value is None:
        return ""
    return f"{value:+.1%}" if what == "mean_jct_vs_fcfs" else f"{value:.0f} s"


def draw_all(folder: Path, bursts: Sequence[BurstRow], steady: Sequence[Row]) -> list[Path]:
    """Bursts by rate for each mode; gain by load for each number of slots; longest wait by policy."""
    paths = [_burst_plot(folder, bursts, mode) for mode in dict.fromkeys(row.batching for row in bursts)]
    names = [name for name in dict.fromkeys(label(row.policy, row.predictor) for row in steady) if name != "fcfs"]
    paths += [_gain_plot(folder, steady, name) for name in names]
    return [*paths, _wait_plot(folder, steady)] if steady else paths


def _burst_plot(folder: Path, rows: Sequence[BurstRow], mode: str) -> Path:
    figure, axes = new_figure(f"Bursts of 50 jobs, batching {mode}", "arrivals a second", "mean JCT against fcfs, %")
    own = [row for row in rows if row.batching == mode and row.rate is not None]
    for name in dict.fromkeys(label(row.policy, row.predictor) for row in own):
        points = [(row.rate, 100 * row.mean_jct_vs_fcfs) for row in own if label(row.policy, row.predictor) == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.legend()
    return save(figure, folder / f"burst-{mode}.png")


def _gain_plot(folder: Path, rows: Sequence[Row], name: str) -> Path:
    figure, axes = new_figure(f"Steady state: {name}", "load", "mean JCT against fcfs, %")
    own = [row for row in rows if label(row.policy, row.predictor) == name]
    for slots in sorted({row.slots for row in own}):
        points = [(row.load, 100 * (row.mean_jct_vs_fcfs or 0.0)) for row in own if row.slots == slots]
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{slots} slots")
    axes.legend()
    return save(figure, folder / f"steady-{name.replace(' ', '-').replace('@', '-within-')}.png")


def _wait_plot(folder: Path, rows: Sequence[Row]) -> Path:
    figure, axes = new_figure("Longest wait at load 0.9", "slots", "seconds")
    own = [row for row in rows if row.load == 0.9]
    for name in dict.fromkeys(label(row.policy, row.predictor) for row in own):
        points = [(row.slots, row.max_wait_s) for row in own if label(row.policy, row.predictor) == name]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.set(xscale="log", yscale="symlog")
    axes.legend()
    return save(figure, folder / "longest-wait.png")
