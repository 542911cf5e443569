from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.errors import InvalidSetting
from ssjf.core.job import Job
from ssjf.core.policies.aging import SsjfAging, default_rate
from ssjf.core.policies.base import KeyedPolicy
from ssjf.core.policies.registry import POLICY_NAMES, make_policy
from ssjf.core.settings import CoreSettings
from tests.unit.core.build import drain, make_job, make_scheduler


def dispatch_order(policy: str, jobs: list[Job], now: float = 100.0, **settings: float) -> list[int]:
    scheduler = make_scheduler(policy=policy, **settings)
    for job in jobs:
        scheduler.submit(job, job.arrival)
    return [jobs.index(job) for job_id in drain(scheduler, now) for job in jobs if job.job_id == job_id]


def test_names() -> None:
    assert set(POLICY_NAMES) == {
        "fcfs", "ssjf", "ssjf-aging", "sept-tail", "hrrn", "prompt-length", "sjf-oracle", "random",
    }  # fmt: skip
    for name in POLICY_NAMES:
        assert make_policy(name, CoreSettings()).name == name


def test_unknown_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidSetting, match=r"policy is 'lifo'.*fcfs, ssjf"):
        make_policy("lifo", CoreSettings())


def test_fcfs_goes_by_arrival_whatever_the_prediction() -> None:
    jobs = [make_job(300, arrival=2.0), make_job(900, arrival=1.0), make_job(5, arrival=3.0)]
    assert dispatch_order("fcfs", jobs) == [1, 0, 2]


def test_ssjf_goes_by_prediction_then_arrival() -> None:
    jobs = [make_job(300), make_job(5), make_job(300), make_job(80)]
    assert dispatch_order("ssjf", jobs) == [1, 3, 0, 2]


@pytest.mark.parametrize("policy", ["ssjf", "ssjf-aging", "sept-tail", "sjf-oracle", "hrrn"])
def test_cost_counts_sequences_and_prefill(policy: str) -> None:
    jobs = [make_job(100, sequences=4), make_job(100, prompt_tokens=5000), make_job(150)]
    # 400, 100 + 50 and 150 with the prefill at a hundredth; the tie of the last two goes by arrival.
    assert dispatch_order(policy, jobs, prefill_weight=0.01, sept_tail_beta=0.0) == [1, 2, 0]
    assert dispatch_order(policy, jobs, prefill_weight=0.1, sept_tail_beta=0.0) == [2, 0, 1]


def test_aging_lets_an_old_long_job_pass_a_new_short_one() -> None:
    old, middle, new = make_job(100, arrival=0), make_job(100, arrival=9.0), make_job(10, arrival=10.1)
    assert dispatch_order("ssjf-aging", [old, middle, new], aging_rate=9.0) == [0, 2, 1]
    assert dispatch_order("ssjf-aging", [old, middle, new], aging_rate=0.0) == [2, 0, 1]
    assert dispatch_order("ssjf-aging", [old, middle, new], aging_rate=1e6) == [0, 1, 2]


@given(st.floats(1, 1e5), st.floats(1, 1e4))
def test_default_rate_is_a_mean_job_overtaking_a_newcomer_of_length_zero_after_half_of_max_wait(
    mean: float, max_wait: float
) -> None:
    policy = SsjfAging(default_rate(mean, max_wait), prefill_weight=0.0)

    def newcomer_key(arrival: float) -> float:
        return policy.key(make_job(0, arrival=arrival, min_tokens=0))

    waiting = policy.key(make_job(mean, max_tokens=10**6))
    assert newcomer_key(max_wait * 0.49) < waiting < newcomer_key(max_wait * 0.51)


def test_without_a_bound_on_waiting_the_default_rate_is_ssjf() -> None:
    assert default_rate(100, math.inf) == 0


def test_sept_tail_puts_the_heavier_tail_later() -> None:
    jobs = [make_job(100, tail=1000), make_job(120, tail=130)]
    assert dispatch_order("sept-tail", jobs, sept_tail_beta=0.5) == [1, 0]
    assert dispatch_order("sept-tail", jobs, sept_tail_beta=0.0) == [0, 1]


def test_prompt_length_ignores_predictions() -> None:
    jobs = [make_job(1, prompt_tokens=50), make_job(900, prompt_tokens=20)]
    assert dispatch_order("prompt-length", jobs) == [1, 0]


def test_oracle_uses_the_clients_hint_clamped_and_else_the_prediction() -> None:
    jobs = [
        make_job(1, expected_tokens=500.0),
        make_job(999, expected_tokens=20.0),
        make_job(100),
        make_job(1, expected_tokens=9999.0, max_tokens=50),
    ]
    assert dispatch_order("sjf-oracle", jobs) == [1, 3, 2, 0]


def test_random_is_a_permutation_fixed_by_the_seed_and_unrelated_to_anything_else() -> None:
    jobs = [make_job(index + 1, arrival=index, job_id=index) for index in range(200)]
    first, again, other = (dispatch_order("random", jobs, random_seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert sorted(first) == list(range(200))
    early = sum(place < 100 for place in first[:100])
    assert 30 <= early <= 70  # hypergeometric: 50 ± 3.5


def test_hrrn_is_the_highest_response_ratio_at_each_moment() -> None:
    # Works at least 10 % apart are in groups of their own, where the rule is exact.
    works = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0]
    source = random.Random(3)
    jobs = [make_job(work, arrival=source.uniform(0, 50)) for work in works]
    scheduler = make_scheduler(policy="hrrn")
    for job in jobs:
        scheduler.submit(job, 50.0)
    waiting, now = list(jobs), 50.0
    while waiting:
        best = max(waiting, key=lambda job: 1 + (now - job.arrival) / job.predicted_tokens)
        (chosen,) = scheduler.schedule(now).dispatch
        assert chosen is best
        waiting.remove(best)
        scheduler.finish(best.job_id, 1, now)
        now += source.uniform(0, 40)


def test_hrrn_order_changes_with_time() -> None:
    def first(now: float) -> Job:
        scheduler = make_scheduler(policy="hrrn")
        long, short = make_job(1000, arrival=0.0), make_job(10, arrival=99.0)
        for job in (long, short):
            scheduler.submit(job, 99.0)
        return scheduler.schedule(now).dispatch[0]

    assert first(99.1).predicted_tokens == 1000  # 0.1 s of 10 against 99 s of 1,000
    assert first(101.0).predicted_tokens == 10


@pytest.mark.parametrize("name", POLICY_NAMES)
def test_every_policy_with_predictions_is_under_the_guardrail(name: str) -> None:
    policy = make_policy(name, CoreSettings(max_wait_s=math.inf))
    short, long = make_job(10, prompt_tokens=7, expected_tokens=5), make_job(20, prompt_tokens=7, expected_tokens=5)
    if isinstance(policy, KeyedPolicy) and name != "random":
        assert policy.uses_predictions == (policy.key(short) != policy.key(long))
