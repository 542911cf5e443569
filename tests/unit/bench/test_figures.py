"""Figures of runs whose times are known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ssjf_tools.bench.live.figures import (
    Objective,
    alone_seconds,
    beyond_guarantee,
    block_interval,
    itl_s,
    run_figures,
)
from ssjf_tools.bench.live.first_pass import measured_capacity
from tests.unit.bench.build import make_outcome, make_run, one_slot

TOKENS = [40, 10, 20, 10]
ARRIVALS = [0.0, 0.0, 0.0, 0.0]


def test_figures_of_a_run() -> None:
    run = one_slot(ARRIVALS, TOKENS, [0, 1, 2, 3])  # starts 0, 4, 5, 7; ends 4, 5, 7, 8
    found = run_figures(run, np.array([4.0, 1.0, 2.0, 1.0]), Objective(ttft_s=5.0, itl_s=0.2))
    assert found["mean_jct_s"] == pytest.approx(6.0)
    assert found["p50_jct_s"] == pytest.approx(6.0)
    assert found["mean_ttft_s"] == pytest.approx(4.1)
    assert found["mean_wait_s"] == pytest.approx(4.0)
    assert found["max_wait_s"] == pytest.approx(7.0)
    assert found["tokens_per_s"] == pytest.approx(10.0)
    assert found["normalised_latency_s"] == pytest.approx((4 / 40 + 5 / 10 + 7 / 20 + 8 / 10) / 4)
    assert [found[f"slowdown_q{at}"] for at in (1, 2, 3, 4)] == pytest.approx([5.0, 8.0, 3.5, 1.0])
    assert found["goodput_per_s"] == pytest.approx(2 / 8)  # first tokens after 0.1, 4.1, 5.1 and 7.1 s
    assert found["good_share"] == 0.5


def test_failed_requests_count_as_such_and_nowhere_else() -> None:
    run = one_slot(ARRIVALS, TOKENS, [0, 1, 2, 3])
    for column in (run.first_s, run.end_s, run.queue_s, run.output_tokens):
        column[3] = np.nan
    found = run_figures(run, np.ones(4), Objective())
    assert found["failed"] == 1
    assert found["mean_jct_s"] == pytest.approx((4 + 5 + 7) / 3)
    assert found["good_share"] == 0.5  # a request that fails is no good one


def test_a_single_token_has_no_gaps() -> None:
    assert np.isnan(itl_s(make_run([0.0], [0.0], [1]))).all()
    assert itl_s(make_run([0.0], [0.0], [5])) == pytest.approx([0.1])
    assert run_figures(make_run([0.0], [0.0], [1]), np.ones(1), Objective())["good_share"] == 1.0


def test_time_alone_is_what_is_left_without_the_queue() -> None:
    runs = [one_slot(ARRIVALS, TOKENS, order) for order in ([0, 1, 2, 3], [3, 2, 1, 0])]
    found = alone_seconds(runs, [np.arange(4)] * 2, 5)
    assert found[:4] == pytest.approx([4.0, 1.0, 2.0, 1.0])
    assert np.isnan(found[4])


def test_arms_against_fcfs_and_the_oracle() -> None:
    runs = []
    for repeat, order in enumerate(([0, 1, 2, 3], [0, 2, 1, 3])):
        runs.append(("fcfs", repeat, one_slot(ARRIVALS, TOKENS, order)))  # mean 6, and 6.25
        runs.append(("ssjf", repeat, one_slot(ARRIVALS, TOKENS, [1, 2, 3, 0])))  # 1, 3, 4, 8: 4
        runs.append(("sjf-oracle", repeat, one_slot(ARRIVALS, TOKENS, [1, 3, 2, 0])))  # 1, 2, 4, 8: 3.75
    rows = {row["policy"]: row for row in make_outcome(runs, TOKENS).rows()}
    assert rows["ssjf"]["mean_jct_vs_fcfs"] == pytest.approx(4 / 6.125 - 1)
    interval = rows["ssjf"]["ci95_mean_jct_vs_fcfs"]
    assert isinstance(interval, tuple)
    assert interval[0] < 4 / 6.125 - 1 < interval[1] < 0
    assert rows["ssjf"]["share_of_oracle_gain"] == pytest.approx(2.125 / 2.375)
    assert rows["ssjf"]["tokens_per_s_vs_fcfs"] == pytest.approx(0.0)
    assert rows["ssjf"]["kept_lengths"] == 1.0
    assert rows["fcfs"]["share_of_oracle_gain"] == 0.0
    assert rows["ssjf"]["beyond_guarantee"] == 0


def test_blocks_are_paired_with_their_own() -> None:
    source = np.random.default_rng(3)
    waits = source.exponential(5.0, 400) + np.linspace(0, 50, 400)  # a queue that grows: blocks differ a lot
    due = np.arange(400.0)
    fair = make_run(due.tolist(), (due + waits).tolist(), [10] * 400)
    better = make_run(due.tolist(), (due + waits - 2 + source.normal(0, 1, 400)).tolist(), [10] * 400)
    interval = block_interval([better], [fair])
    assert interval is not None
    mean = float((fair.end_s - fair.arrival_s).mean())
    assert interval[0] < -2 / mean < interval[1] < 0
    assert interval[1] - interval[0] < 0.02
    few = make_run(due[:150].tolist(), due[:150].tolist(), [10] * 150)
    assert block_interval([few], [few]) is None


def test_who_waits_longer_than_guaranteed() -> None:
    fair, unfair = one_slot(ARRIVALS, TOKENS, [0, 1, 2, 3]), one_slot(ARRIVALS, TOKENS, [1, 2, 3, 0])
    assert beyond_guarantee(fair, fair, 0.0) == 0
    # The long answer waits 4 s instead of 0; it may wait for the longest answer, 4 s, and the bound.
    assert beyond_guarantee(unfair, fair, 0.0) == 0
    worse = make_run(ARRIVALS, [5.0, 0.0, 1.0, 3.0], TOKENS)
    assert beyond_guarantee(worse, fair, 0.9) == 1
    assert beyond_guarantee(worse, fair, 1.1) == 0


def test_capacity_leaves_out_the_end_when_slots_run_empty() -> None:
    # Two slots, a closed loop of three clients: one slot serves the long answer, the other three short ones.
    run = make_run([0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 2.0], [60, 10, 10, 10])
    found = measured_capacity(run, 2)
    # The last request leaves the queue after 2 s; until then each slot has made a token every 0.1 s.
    assert found.tokens_per_s == pytest.approx(20.0, rel=0.1)
    assert found.requests_per_s == pytest.approx(found.tokens_per_s / 22.5)
