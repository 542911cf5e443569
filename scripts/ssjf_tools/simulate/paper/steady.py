"""The same predictions in steady state: where the gain lives, and where it vanishes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ssjf_tools.simulate.events import Setup
from ssjf_tools.simulate.experiment import Experiment, Row, rows_of, run
from ssjf_tools.simulate.policies import parse_arm
from ssjf_tools.simulate.service import PAPER
from ssjf_tools.simulate.sources import Population
from ssjf_tools.simulate.workload import ArrivalProcess, rate_for_load

LOADS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SLOTS = (1, 2, 4, 8, 16, 64)
# Each with every predictor; then what bounds the wait, with the finest predictor only.
_PLAIN = ("fcfs", "random", "ssjf", "sjf-oracle")
_BOUNDED = ("ssjf@60", "ssjf-aging")


def run_steady(
    population: Population,
    requests: int,
    seeds: int,
    progress: Callable[[str], None],
    loads: Sequence[float] = LOADS,
    slots: Sequence[int] = SLOTS,
) -> list[Row]:
    """Poisson arrivals, continuous batching, the paper's service times; every load and number of slots."""
    rows: list[Row] = []
    for count in slots:
        for load in loads:
            rows.extend(_cell(population, count, load, requests, seeds, progress))
    return rows


def _cell(
    population: Population, slots: int, load: float, requests: int, seeds: int, progress: Callable[[str], None]
) -> list[Row]:
    process = ArrivalProcess("poisson", rate_for_load(population, PAPER, slots, load))
    setup = Setup("continuous", slots, PAPER)
    experiment = Experiment(population, process, setup, requests, seeds, load)
    names = list(population.predicted)

    def report(what: str) -> None:
        progress(f"{slots} slots, load {load:g}: {what}")

    runs = run(experiment, [parse_arm(name, None) for name in _PLAIN], names, report)
    runs += run(experiment, [parse_arm(name, None) for name in _BOUNDED], names[-1:], report)
    return rows_of(experiment, runs)
