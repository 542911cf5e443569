"""scripts/reproduce-paper."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from ssjf_tools.simulate import plots
from ssjf_tools.simulate.paper.burst import run_bursts
from ssjf_tools.simulate.paper.figures import burst_table, draw_all, steady_table
from ssjf_tools.simulate.paper.steady import LOADS, SLOTS, run_steady
from ssjf_tools.simulate.report import write_json
from ssjf_tools.simulate.sources import read_predictions

_DESCRIPTION = """\
Reproduces the experiment of the SSJF paper (arXiv 2404.08509) from its published predictions, and asks what the same
predictions give in steady state. docs/paper.md compares claim by claim.
"""
_EPILOG = """\
(a) the paper's own: bursts of 50 jobs at 1 to 10 arrivals a second, without batching, in groups of two that end
    together, and in two slots that are refilled, 0.1 s + 0.02 s a token, for every predictor column. "done/s at 25 %"
    is the paper's throughput figure: completions per second until a quarter of the jobs is done. It says nothing of
    capacity: beside it stands the same at 100 %.
(b) steady state: Poisson arrivals, continuous batching, loads 0.5 to 0.95, 1 to 64 slots, with random order, the
    oracle, a bound on waiting (ssjf@60) and aging.

example
  scripts/reproduce-paper --predictions ssjf_paper_lmsys_vicuna13b.csv --json paper.json --plots plots/
"""


def parser() -> argparse.ArgumentParser:
    """All options with their help."""
    made = argparse.ArgumentParser(
        prog="scripts/reproduce-paper",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--predictions", type=Path, required=True, metavar="CSV", help="as for scripts/simulate; arrival_s is not used"
    )
    made.add_argument("--runs", type=int, default=200, help="bursts at each rate (%(default)s; the paper: 20)")
    made.add_argument("--requests", type=int, default=20_000, help="of a steady run (%(default)s)")
    made.add_argument("--seeds", type=int, default=3, help="steady runs of each kind (%(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the bursts (%(default)s)")
    made.add_argument("--only", choices=("bursts", "steady"), help="leave the other part out")
    made.add_argument("--json", type=Path, metavar="OUT", help="write all rows here")
    made.add_argument("--plots", type=Path, metavar="DIR", help="write plots here (installs matplotlib on first use)")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for input that cannot be used."""
    command = parser()
    chosen = command.parse_args(arguments)
    _refuse_unused(command, chosen)
    for name in ("runs", "requests", "seeds"):
        if getattr(chosen, name) < 1:
            command.error(f"--{name} is {getattr(chosen, name)}, allowed: 1 and more")
    try:
        if chosen.plots is not None:
            plots.check_available()
        population = read_predictions(chosen.predictions)
    except ValueError as error:  # InputError is one
        print(f"scripts/reproduce-paper: {error}", file=sys.stderr)
        return 2
    bursts = [] if chosen.only == "steady" else run_bursts(population, chosen.runs, chosen.seed, _progress)
    if bursts:
        print(f"(a) the paper's experiment: bursts of 50 jobs, {chosen.runs} runs at each rate, against fcfs\n")
        print(burst_table(bursts))
    steady = [] if chosen.only == "bursts" else run_steady(population, chosen.requests, chosen.seeds, _progress)
    if steady:
        print(f"\n(b) steady state: mean JCT against fcfs, {chosen.requests:,} requests × {chosen.seeds} seeds\n")
        print(steady_table(steady))
        print("\nlongest wait\n")
        print(steady_table([row for row in steady if row.load in (LOADS[2], LOADS[-2])], "max_wait_s"))
    if chosen.json is not None:
        extra = {"bursts": [asdict(row) for row in bursts], "loads": LOADS, "slots": SLOTS}
        write_json(chosen.json, steady, **extra)
    if chosen.plots is not None:
        for path in draw_all(chosen.plots, bursts, steady):
            print(f"plot: {path}")
    return 0


def _refuse_unused(command: argparse.ArgumentParser, chosen: argparse.Namespace) -> None:
    """End with status 2 for an argument of the part that --only leaves out."""
    unused = {"steady": ("runs", "seed"), "bursts": ("requests", "seeds")}.get(chosen.only, ())
    for name in unused:
        if getattr(chosen, name) != command.get_default(name):
            command.error(f"--{name} has no effect with --only {chosen.only}")


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what} …\r", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
