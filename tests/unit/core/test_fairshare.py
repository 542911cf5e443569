from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.fairshare import FairShare
from tests.unit.core.build import make_job, make_scheduler


def serve(shares: FairShare, rounds: int, work: float = 10.0) -> Counter[str]:
    served: Counter[str] = Counter()
    for _ in range(rounds):
        tenant = shares.next()
        shares.charge(tenant, work)
        served[tenant] += 1
    return served


def test_work_is_shared_by_weight() -> None:
    shares = FairShare({"a": 3.0})
    shares.enter("a")
    shares.enter("b")
    assert serve(shares, 400) == {"a": 300, "b": 100}


def test_absence_earns_no_credit() -> None:
    shares = FairShare({})
    shares.enter("always")
    serve(shares, 1000)
    shares.enter("newcomer")
    first = serve(shares, 20)
    assert first["newcomer"] <= 11


def test_a_debt_is_kept_over_an_absence() -> None:
    shares = FairShare({})
    for tenant in ("a", "b"):
        shares.enter(tenant)
    shares.charge("a", 1000)
    shares.leave("a")
    shares.enter("a")
    assert serve(shares, 90)["a"] == 0


def test_corrections_count() -> None:
    shares = FairShare({"a": 2.0})
    for tenant in ("a", "b"):
        shares.enter(tenant)
    shares.charge("a", 100)
    assert shares.next() == "b"
    shares.correct("a", -100)
    assert shares.served("a") == 0
    shares.charge("b", 1)
    assert shares.next() == "a"
    shares.correct("b", -1)
    shares.correct("a", 10)
    assert shares.next() == "b"


def test_invented_names_do_not_fill_the_memory() -> None:
    shares = FairShare({})
    for index in range(20_000):
        tenant = f"tenant {index}"
        shares.enter(tenant)
        shares.charge(tenant, 5.0)
        shares.leave(tenant)
        shares.correct(tenant, 1.0)
    assert len(shares) < 3000


def test_corrections_alone_do_not_fill_the_memory() -> None:
    shares = FairShare({})
    for tenant in ("a", "b", "c"):
        shares.enter(tenant)
    for step in range(5000):
        shares.correct("c", 1.0 + step % 2)
    assert len(shares._turns) < 100
    assert shares.next() == "a"


def test_the_largest_debts_are_remembered_longest() -> None:
    shares = FairShare({})
    shares.enter("debtor")
    shares.charge("debtor", 1e6)
    shares.leave("debtor")
    for index in range(10_000):
        shares.enter(str(index))
        shares.charge(str(index), 1.0)
        shares.leave(str(index))
    assert shares.served("debtor") == 1e6


@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from(["enter", "leave", "charge", "correct"]), st.integers(-50, 50)
        )
    )
)
def test_next_is_the_present_tenant_that_was_served_least(steps: list[tuple[str, str, int]]) -> None:
    shares = FairShare({"a": 2.0, "c": 0.5})
    present: set[str] = set()
    for tenant, step, amount in steps:
        if step == "enter" and tenant not in present:
            shares.enter(tenant)
            present.add(tenant)
        elif step == "leave" and tenant in present:
            shares.leave(tenant)
            present.remove(tenant)
        elif step == "charge" and tenant in present:
            shares.charge(tenant, abs(amount))
        elif step == "correct":
            shares.correct(tenant, amount)
        if present:
            least = min((shares.served(name), name) for name in present)
            assert shares.served(shares.next()) == least[0]
            assert next(shares.in_turn()) == least[1]


def test_a_tenant_that_floods_the_queue_does_not_hold_up_another() -> None:
    scheduler = make_scheduler(policy="ssjf", max_queue=10_000)
    for _ in range(1000):
        scheduler.submit(make_job(100, tenant="flood"), 0.0)
    quiet = [make_job(400, tenant="quiet") for _ in range(5)]
    for job in quiet:
        scheduler.submit(job, 0.0)
    dispatched = []
    for _ in range(30):
        (job,) = scheduler.schedule(0.0).dispatch
        dispatched.append(job)
        scheduler.finish(job.job_id, int(job.predicted_tokens), 0.0)
    # A job of 400 for every four of 100.
    assert all(job in dispatched for job in quiet)


def test_a_tenant_pays_for_what_it_got_not_for_what_was_predicted() -> None:
    scheduler = make_scheduler()
    for index in range(200):
        scheduler.submit(make_job(100, tenant="liar"), 0.0)
        scheduler.submit(make_job(100, tenant="honest"), 0.0)
        assert index >= 0
    served: Counter[str] = Counter()
    for _ in range(200):
        (job,) = scheduler.schedule(0.0).dispatch
        served[job.tenant] += 1
        scheduler.finish(job.job_id, 900 if job.tenant == "liar" else 100, 0.0)
    assert served["honest"] / served["liar"] == pytest.approx(9, rel=0.1)


def test_weights_come_from_the_settings_and_hold_within_a_class() -> None:
    scheduler = make_scheduler(tenant_weights={"gold": 4.0})
    for urgency in (1, 0):
        for _ in range(100):
            scheduler.submit(make_job(100, tenant="gold", priority_class=urgency), 0.0)
            scheduler.submit(make_job(100, tenant="basic", priority_class=urgency), 0.0)
    served: Counter[tuple[int, str]] = Counter()
    for _ in range(100):
        (job,) = scheduler.schedule(0.0).dispatch
        served[job.priority_class, job.tenant] += 1
        scheduler.finish(job.job_id, 100, 0.0)
    assert served == {(0, "gold"): 80, (0, "basic"): 20}
