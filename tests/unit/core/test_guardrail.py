from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from ssjf.core.guardrail import Guardrail
from ssjf.core.scheduler import Scheduler
from ssjf.core.settings import CoreSettings
from tests.unit.core.build import make_job, make_scheduler

Predictor = Callable[[float, random.Random], float]


def good(actual: float, source: random.Random) -> float:
    return actual * source.lognormvariate(0, 0.5)


def opposite(actual: float, source: random.Random) -> float:
    return 2000 - actual


def useless(actual: float, source: random.Random) -> float:
    return source.uniform(1, 1000)


def feed(guardrail: Guardrail, predictor: Predictor, answers: int, seed: int = 0) -> bool:
    """Give it that many answers; whether it has fallen then."""
    source = random.Random(seed)
    for _ in range(answers):
        actual = source.uniform(1, 1000)
        guardrail.observe(predictor(actual, source), actual)
    return guardrail.fallen


def test_stays_up_with_a_good_predictor() -> None:
    guardrail = Guardrail(CoreSettings())
    assert not feed(guardrail, good, 5000)
    assert guardrail.changes == 0
    assert guardrail.tau is not None
    assert guardrail.tau > 0.4


def test_falls_when_the_order_is_reversed_and_recovers_by_itself() -> None:
    guardrail = Guardrail(CoreSettings())
    feed(guardrail, good, 300)
    assert feed(guardrail, opposite, 320)
    assert not feed(guardrail, good, 320)
    assert guardrail.changes == 2


def test_waits_for_enough_answers() -> None:
    guardrail = Guardrail(CoreSettings(guardrail_min_answers=128))
    assert not feed(guardrail, opposite, 127)
    assert feed(guardrail, opposite, 1)


def test_a_useless_predictor_does_not_switch_back_and_forth() -> None:
    def changes(**settings: float) -> int:
        total = 0
        for seed in range(5):
            guardrail = Guardrail(CoreSettings(**settings))  # type: ignore[arg-type]
            feed(guardrail, useless, 256 * 20, seed)
            total += guardrail.changes
        return total

    # 100 windows, judged four times each.
    assert changes() <= 10
    assert changes(guardrail_recover_tau=0.0) > 50


def test_hysteresis_a_weak_predictor_neither_falls_nor_recovers() -> None:
    def weak(actual: float, source: random.Random) -> float:
        return actual if source.random() < 0.12 else source.uniform(1, 1000)

    settings = CoreSettings(guardrail_window=2048, guardrail_min_answers=2048, guardrail_every=512)
    standing, fallen = Guardrail(settings), Guardrail(settings)
    feed(standing, weak, 8192)
    feed(fallen, opposite, 2048)
    feed(fallen, weak, 8192)
    assert not standing.fallen
    assert fallen.fallen


def test_bias_alone_makes_it_fall_and_half_the_way_back_recovers() -> None:
    guardrail = Guardrail(CoreSettings(guardrail_max_bias=10))
    assert feed(guardrail, lambda actual, _: actual * 11, 256)
    assert guardrail.tau == 1
    assert feed(guardrail, lambda actual, _: actual * 5, 256)  # within 10, but not within √10
    assert not feed(guardrail, lambda actual, _: actual * 3, 256)
    assert feed(guardrail, lambda actual, _: actual / 11, 256)


def test_equal_answers_are_no_evidence() -> None:
    guardrail = Guardrail(CoreSettings())
    for _ in range(512):
        guardrail.observe(100, 100)
    assert guardrail.tau is None
    assert not guardrail.fallen


def test_can_be_switched_off_and_still_reports() -> None:
    guardrail = Guardrail(CoreSettings(guardrail=False))
    assert not feed(guardrail, opposite, 512)
    assert guardrail.tau == -1


def run(scheduler: Scheduler, predictor: Predictor, answers: int, **fields: Any) -> None:
    source = random.Random(5)
    for _ in range(answers):
        actual = source.randint(1, 1000)
        job = make_job(predictor(actual, source), **fields)
        scheduler.submit(job, 0.0)
        scheduler.schedule(0.0)
        scheduler.finish(job.job_id, actual, 0.0)


def test_the_scheduler_orders_by_fcfs_while_it_has_fallen_and_returns() -> None:
    scheduler = make_scheduler(guardrail=True)
    run(scheduler, opposite, 256)
    state = scheduler.snapshot(0.0)
    assert (state.policy, state.effective_policy, state.guardrail_fallen) == ("ssjf", "fcfs", True)
    long, short = make_job(900, arrival=0.0), make_job(5, arrival=1.0)
    scheduler.submit(long, 1.0)
    scheduler.submit(short, 1.0)
    assert scheduler.schedule(1.0).dispatch == [long]
    scheduler.cancel(short.job_id, 1.0)
    scheduler.finish(long.job_id, 5, 1.0, learn=False)
    run(scheduler, good, 512)
    assert scheduler.snapshot(0.0).effective_policy == "ssjf"


def test_jobs_that_wait_are_reordered_when_it_falls() -> None:
    scheduler = make_scheduler(guardrail=True, max_inflight=1000)
    source = random.Random(1)
    running = []
    for _ in range(128):
        actual = source.randint(1, 1000)
        running.append((make_job(opposite(actual, source)), actual))
        scheduler.submit(running[-1][0], 0.0)
    scheduler.schedule(0.0)
    scheduler.set_limits(0.0, max_inflight=1)
    long, short = make_job(900, arrival=0.0), make_job(5, arrival=1.0)
    scheduler.submit(long, 1.0)
    scheduler.submit(short, 1.0)
    for job, actual in running:
        scheduler.finish(job.job_id, actual, 1.0)
    assert scheduler.schedule(1.0).dispatch == [long]


def test_policies_without_predictions_are_left_alone() -> None:
    scheduler = make_scheduler(policy="prompt-length", guardrail=True)
    run(scheduler, opposite, 256)
    assert scheduler.snapshot(0.0).guardrail_fallen
    assert scheduler.snapshot(0.0).effective_policy == "prompt-length"
    scheduler.set_policy("sept-tail", 0.0)
    assert scheduler.snapshot(0.0).effective_policy == "fcfs"


def test_only_the_proxys_predictions_are_judged() -> None:
    for source in ("prior", "client"):
        scheduler = make_scheduler(guardrail=True)
        run(scheduler, opposite, 256, source=source)
        assert scheduler.snapshot(0.0).tau is None
