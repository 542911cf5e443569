"""A machine whose speed changes while it runs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ssjf_tools.simulate.events import Setup, simulate
from ssjf_tools.simulate.pace import Clock
from ssjf_tools.simulate.policies import parse_arm
from ssjf_tools.simulate.service import ServiceModel
from ssjf_tools.simulate.workload import RequestSet

SECOND = (1, 1.0)  # a token a second


def requests(arrivals: list[float], outputs: list[float]) -> RequestSet:
    return RequestSet(np.array(arrivals), np.array(outputs), np.zeros(len(outputs)), {"p": np.array(outputs)})


def test_a_clock_goes_at_the_pace_of_each_time() -> None:
    clock = Clock([0.0, 10.0, 20.0], [1.0, 2.0, 0.5])
    wall, engine = [0.0, 5.0, 10.0, 14.0, 20.0, 21.0], [0.0, 5.0, 10.0, 12.0, 15.0, 17.0]
    assert [clock.engine_time(time) for time in wall] == engine
    assert [clock.wall_time(time) for time in engine] == wall
    assert clock.wall_time(math.inf) == math.inf


@pytest.mark.parametrize(
    ("since", "factors"),
    [([], []), ([0.0], [0.0]), ([0.0], [-1.0]), ([1.0], [1.0]), ([0.0, 1.0], [1.0])],
    ids=["empty", "stands still", "backwards", "late", "too few"],
)
def test_wrong_clocks(since: list[float], factors: list[float]) -> None:
    with pytest.raises(ValueError, match="a clock needs a factor above 0"):
        Clock(since, factors)


@pytest.mark.parametrize(
    "model",
    [
        ServiceModel(0.0, 0.0, (SECOND,)),
        ServiceModel(0.0, 0.0, (SECOND, (2, 1.0))),
        ServiceModel(0.0, 0.0, (SECOND, (2, 1.0)), chunk_tokens=50),
    ],
    ids=["fixed", "lockstep", "chunked"],
)
def test_every_engine_keeps_to_the_clock(model: ServiceModel) -> None:
    setup = Setup("continuous", 1, model, clock=Clock([0.0, 4.0], [1.0, 2.0]))
    found = simulate(requests([0.0, 1.0], [10.0, 1.0]), parse_arm("fcfs", None), None, setup)
    # Four tokens in the four seconds at full speed, then two seconds for each of the other six.
    assert found.end_s.tolist() == pytest.approx([16.0, 18.0])
    assert found.start_s.tolist() == pytest.approx([0.0, 16.0])


def test_a_constant_pace_is_a_stretched_model() -> None:
    source = np.random.default_rng(0)
    arrivals, outputs = np.cumsum(source.exponential(8.0, 300)).tolist(), source.integers(1, 30, 300).tolist()
    given, arm = requests(arrivals, outputs), parse_arm("ssjf", None)
    model = ServiceModel(0.2, 0.0, ((1, 0.5), (3, 0.9)))
    slow = ServiceModel(0.3, 0.0, ((1, 0.75), (3, 1.35)))
    paced = simulate(given, arm, "p", Setup("continuous", 3, model, clock=Clock([0.0], [1.5])))
    stretched = simulate(given, arm, "p", Setup("continuous", 3, slow))
    assert paced.wait_s.max() > 1.0
    assert paced.end_s.tolist() == pytest.approx(stretched.end_s.tolist())
