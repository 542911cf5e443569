"""The paper's predictions in steady state against an independent calculation.

The predictions are no part of this repository; SSJF_TEST_PAPER_CSV names the file, and `-k independent_calculation`
runs this alone (1.4 million requests in all).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ssjf_tools.simulate.events import Setup
from ssjf_tools.simulate.experiment import Experiment, rows_of, run
from ssjf_tools.simulate.policies import ORACLE, parse_arm
from ssjf_tools.simulate.service import PAPER
from ssjf_tools.simulate.sources import Population, read_predictions
from ssjf_tools.simulate.workload import ArrivalProcess, rate_for_load

FILE = os.environ.get("SSJF_TEST_PAPER_CSV", "")
LOAD, REQUESTS, SEEDS = 0.9, 80_000, 3
TOLERANCE = 0.02  # two points


@pytest.fixture(scope="module")
def population() -> Population:
    return read_predictions(Path(FILE))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not FILE, reason="SSJF_TEST_PAPER_CSV is not set: the CSV of the paper's published predictions")
@pytest.mark.parametrize(("slots", "class5", "oracle"), [(1, -0.339, -0.460), (8, -0.150, -0.200)])
def test_the_gain_is_that_of_an_independent_calculation(
    population: Population, slots: int, class5: float, oracle: float
) -> None:
    process = ArrivalProcess("poisson", rate_for_load(population, PAPER, slots, LOAD))
    experiment = Experiment(population, process, Setup("continuous", slots, PAPER), REQUESTS, SEEDS, LOAD)
    arms = [parse_arm(name, None) for name in ("fcfs", "ssjf", ORACLE)]
    found = {row.policy: row for row in rows_of(experiment, run(experiment, arms, ["class5"], lambda _what: None))}
    assert found["ssjf"].mean_jct_vs_fcfs == pytest.approx(class5, abs=TOLERANCE)
    assert found[ORACLE].mean_jct_vs_fcfs == pytest.approx(oracle, abs=TOLERANCE)
