"""The speed of a machine, found again in the times of a run on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ssjf_tools.bench.live.against import agreements
from ssjf_tools.bench.live.asking import Run
from ssjf_tools.bench.live.pace import clock_of, slowness
from ssjf_tools.bench.live.record import Record, RecordedRun
from ssjf_tools.simulate.events import Setup, simulate
from ssjf_tools.simulate.pace import Clock
from ssjf_tools.simulate.policies import parse_arm
from ssjf_tools.simulate.service import ServiceModel
from ssjf_tools.simulate.workload import RequestSet

MODEL = ServiceModel(0.0, 0.0, ((1, 0.05), (4, 0.11)))
DRIFTING = Clock([0.0, 90.0, 180.0], [1.0, 1.5, 0.8])


def run_on(clock: Clock) -> Run:
    """125 requests through four slots of a machine that keeps to the clock; without prefill, so that the first of
    n + 1 tokens comes at the start.
    """
    lengths = np.random.default_rng(3).integers(10, 80, 125).astype(float)
    arrivals = 2.0 * np.arange(125)
    given = RequestSet(arrivals, lengths, np.zeros(125), {"p": lengths})
    found = simulate(given, parse_arm("ssjf", None), "p", Setup("continuous", 4, MODEL, clock=clock))
    return Run(
        arrival_s=arrivals,
        first_s=found.start_s,
        end_s=found.end_s,
        queue_s=found.wait_s,
        longest_gap_s=np.zeros(125),
        output_tokens=(lengths + 1).astype(np.float64),
        prompt_tokens=np.zeros(125),
        predicted_tokens=lengths,
    )


def test_the_pace_of_each_window_is_found() -> None:
    assert clock_of(run_on(DRIFTING), MODEL).factors == pytest.approx([1.0, 1.5, 0.8], rel=0.01)
    assert clock_of(run_on(Clock([0.0], [1.0])), MODEL).factors == pytest.approx([1.0, 1.0, 1.0], rel=1e-6)


def test_a_window_with_few_answers_is_taken_to_be_like_the_run() -> None:
    run = run_on(DRIFTING)
    late = run.end_s >= 180.0
    late[np.flatnonzero(late)[:9]] = False  # nine are left
    run.end_s[late] = np.nan
    factors = clock_of(run, MODEL).factors
    assert factors[2] == pytest.approx(float(np.median(slowness(run, MODEL)[1])))
    assert factors[2] != pytest.approx(0.8, rel=0.1)


def test_nothing_to_go_by_is_the_calibrated_speed() -> None:
    run = run_on(DRIFTING)
    run.output_tokens[:] = 3
    assert clock_of(run, MODEL).factors == [1.0]
    run.end_s[:] = np.nan
    assert clock_of(run, MODEL).factors == [1.0]


def test_a_prompt_that_held_others_up_is_no_slow_machine() -> None:
    """As in test_a_prompt_in_chunks_holds_up_who_decodes: 15 and 12 tokens more, the first held up for a second."""
    model = ServiceModel(0.0, 0.01, ((1, 0.1), (2, 0.2)), chunk_tokens=50)
    run = Run(
        arrival_s=np.array([0.0, 1.0]),
        first_s=np.array([0.0, 2.2]),
        end_s=np.array([2.8, 3.7]),
        queue_s=np.zeros(2),
        longest_gap_s=np.zeros(2),
        output_tokens=np.array([16.0, 13.0]),
        prompt_tokens=np.array([0.0, 100.0]),
        predicted_tokens=np.zeros(2),
    )
    assert slowness(run, model)[1] == pytest.approx([1.0, 1.0])
    twice = replace(run, arrival_s=2 * run.arrival_s, first_s=2 * run.first_s, end_s=2 * run.end_s)
    assert slowness(twice, model)[1] == pytest.approx([2.0, 2.0])


def test_a_drifting_machine_agrees_at_its_own_speed() -> None:
    run = run_on(DRIFTING)
    record = Record(4, 1e6, [RecordedRun("ssjf", 0, None, run)])
    # The simulator counts decode steps by tokens, and these answers have their first token for nothing.
    run.output_tokens[:] -= 1
    run.predicted_tokens[:] = run.output_tokens
    (plain,) = agreements(record, MODEL)
    assert abs(plain.mean_off) > 0.1
    (own,) = agreements(record, MODEL, own_speed=True)
    assert own.mean_off == pytest.approx(0.0, abs=0.05)
    assert own.p90_off == pytest.approx(0.0, abs=0.05)
    assert own.slowness is not None
    assert own.slowness == pytest.approx((0.8, 1.5), rel=0.05)
