"""scripts/simulate."""

from __future__ import annotations

import sys

from ssjf_tools.simulate import plots
from ssjf_tools.simulate.experiment import Experiment, rows_of, run
from ssjf_tools.simulate.options import arms_of, experiment_of, notes_of, parser, population_of, predictors_of
from ssjf_tools.simulate.report import table, write_json
from ssjf_tools.simulate.service import PAPER
from ssjf_tools.simulate.workload import draw


def main(arguments: list[str] | None = None) -> int:
    """Entry point; returns the exit status, 2 for input that cannot be used."""
    chosen = parser().parse_args(arguments)
    try:
        arms = arms_of(chosen)
        population = population_of(chosen)
        predictors = predictors_of(chosen, population)
        experiment = experiment_of(chosen, population)
        if chosen.plots is not None:
            plots.check_available()
    except ValueError as error:  # InputError is one
        print(f"scripts/simulate: {error}", file=sys.stderr)
        return 2
    for note in notes_of(chosen, experiment):
        print(f"scripts/simulate: note: {note}", file=sys.stderr)
    runs = run(experiment, arms, predictors, _progress)
    rows = rows_of(experiment, runs)
    print(_describe(experiment))
    print(table(rows))
    if chosen.json is not None:
        write_json(chosen.json, rows)
    if chosen.plots is not None:
        requests = draw(experiment.population, experiment.process, experiment.requests, experiment.first_seed)
        for path in plots.draw_runs(chosen.plots, runs, requests):
            print(f"plot: {path}")
    return 0


def _progress(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{what} …\r", end="", file=sys.stderr, flush=True)


def _describe(experiment: Experiment) -> str:
    setup, process = experiment.setup, experiment.process
    load = "" if experiment.load is None else f", load {experiment.load:.3g}"
    rate = "" if process.rate is None else f" at {process.rate:.4g}/s"
    paper = " (the paper's)" if setup.model == PAPER else ""
    return (
        f"{experiment.requests:,} requests × {experiment.seeds} seeds, {process.kind} arrivals{rate}{load}, "
        f"{setup.batching} batching, {setup.slots} slots; times in seconds\n"
        f"service times: {setup.model.describe()}{paper}"
    )


if __name__ == "__main__":
    sys.exit(main())
