from __future__ import annotations

import numpy as np
import pytest

from ssjf_tools.simulate.events import Setup, simulate
from ssjf_tools.simulate.paper.starvation import PaperSimulation
from ssjf_tools.simulate.policies import parse_arm
from ssjf_tools.simulate.service import ServiceModel
from ssjf_tools.simulate.workload import RequestSet

ONE_AT_A_TIME = Setup("none", 1, ServiceModel(base_s=0.0, steps=((1, 1.0),)))  # a token a second
SSJF = parse_arm("ssjf", None)


def overtaken_by_short_jobs(output: float, others: int) -> RequestSet:
    """The second job is taken for the longest of all; every 2 s comes a new one that takes 2 s."""
    arrivals = [0.0, 0.0, *(2.0 * place for place in range(1, others))]
    outputs = [2.0, output, *([2.0] * (others - 1))]
    predicted = [2.0, 1e6, *([2.0] * (others - 1))]
    return RequestSet(np.array(arrivals), np.array(outputs), np.zeros(len(arrivals)), {"p": np.array(predicted)})


@pytest.mark.parametrize(
    ("output", "start"),
    [
        (1.0, 12.0),  # the first end after it has waited for more than ten times its 1 s
        (50.0, 102.0),  # the first end after it has waited for more than 100 s
    ],
)
def test_the_oldest_job_goes_once_it_starves(output: float, start: float) -> None:
    given = overtaken_by_short_jobs(output, 60)
    assert PaperSimulation(given, SSJF, "p", ONE_AT_A_TIME).run().start_s[1] == start
    assert simulate(given, SSJF, "p", ONE_AT_A_TIME).start_s[1] == 120.0


def test_nobody_starves_where_the_queue_is_short() -> None:
    given = overtaken_by_short_jobs(5.0, 20)
    mine, plain = PaperSimulation(given, SSJF, "p", ONE_AT_A_TIME).run(), simulate(given, SSJF, "p", ONE_AT_A_TIME)
    assert mine.end_s.tolist() == plain.end_s.tolist()


def test_after_the_promotion_the_shortest_go_first_again() -> None:
    given = overtaken_by_short_jobs(1.0, 30)
    late = RequestSet(
        np.append(given.arrival_s, [58.0, 58.5]),
        np.append(given.output_tokens, [9.0, 1.0]),
        np.zeros(len(given) + 2),
        {"p": np.append(given.predicted["p"], [9.0, 1.0])},
    )
    start_s = PaperSimulation(late, SSJF, "p", ONE_AT_A_TIME).run().start_s
    assert start_s[1] == 12.0
    assert start_s[-1] < start_s[-2]
