"""What predictions are worth to the scheduler that serves, by simulation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ssjf_tools.simulate.events import Setup
from ssjf_tools.simulate.experiment import Experiment, rows_of, run
from ssjf_tools.simulate.policies import parse_arm
from ssjf_tools.simulate.service import PAPER
from ssjf_tools.simulate.sources import Population
from ssjf_tools.simulate.workload import ArrivalProcess, rate_for_load

LOAD = 0.9
SLOTS = (1, 8)
REQUESTS = 5_000
SEEDS = 3


def oracle_shares(
    true: NDArray[np.float64], predicted: NDArray[np.float64], requests: int = REQUESTS, seeds: int = SEEDS
) -> dict[str, float]:
    """Share of the mean-JCT gain of perfect predictions over FCFS that `predicted` buys, as oracle_share_c<slots>.

    Plain SSJF, Poisson arrivals at load 0.9, the paper's service times; requests are drawn from the rows, tokens [n].
    """
    population = Population(true, np.zeros(len(true)), {"proxy": predicted})
    arms = [parse_arm(name, None) for name in ("fcfs", "ssjf", "sjf-oracle")]
    shares = {}
    for slots in SLOTS:
        process = ArrivalProcess("poisson", rate_for_load(population, PAPER, slots, LOAD))
        experiment = Experiment(population, process, Setup("continuous", slots, PAPER), requests, seeds, LOAD)
        rows = {row.policy: row for row in rows_of(experiment, run(experiment, arms, ["proxy"], lambda _text: None))}
        share = rows["ssjf"].share_of_oracle_gain
        shares[f"oracle_share_c{slots}"] = float("nan") if share is None else share
    return shares
