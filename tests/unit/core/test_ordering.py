from __future__ import annotations

import random
from collections.abc import Callable, Mapping

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ssjf.core.job import Job
from ssjf.core.ordering import ArrivalLine, GroupedOrder, KeyedOrder, Ordering
from ssjf.core.policies.hrrn import Hrrn
from tests.unit.core.build import make_job

Maker = Callable[[Mapping[int, Job]], Ordering]
MAKERS: dict[str, Maker] = {
    "keyed": lambda waiting: KeyedOrder(waiting, lambda job: job.predicted_tokens),
    "arrival": ArrivalLine,
    "grouped": lambda waiting: GroupedOrder(waiting, Hrrn(0.01)),
}


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 5), st.booleans()), max_size=60))
def test_keyed_order_is_by_key_then_id_whatever_is_removed(steps: list[tuple[int, int, bool]]) -> None:
    waiting: dict[int, Job] = {}
    order = KeyedOrder(waiting, lambda job: job.predicted_tokens)
    for predicted, victim, remove in steps:
        job = make_job(predicted)
        order.add(job)
        waiting[job.job_id] = job
        if remove:
            del waiting[sorted(waiting)[victim % len(waiting)]]
            order.trim()
        expected = min(waiting.values(), key=lambda job: (job.predicted_tokens, job.job_id), default=None)
        assert order.first() is expected


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5), st.booleans()), max_size=60))
def test_arrival_line_sorts_jobs_that_come_out_of_order(steps: list[tuple[int, int, bool]]) -> None:
    waiting: dict[int, Job] = {}
    line = ArrivalLine(waiting)
    for arrival, victim, remove in steps:
        job = make_job(arrival=arrival)
        line.add(job)
        waiting[job.job_id] = job
        if remove:
            del waiting[sorted(waiting)[victim % len(waiting)]]
            line.trim()
        expected = min(waiting.values(), key=lambda job: (job.arrival, job.job_id), default=None)
        assert line.first() is expected


@given(st.lists(st.floats(allow_nan=False), min_size=1, max_size=30))
@example([0.0, -0.0, 0.0])
def test_keys_of_any_sign_and_size_sort_as_numbers_do_with_ties_by_id(keys: list[float]) -> None:
    jobs = [make_job(job_id=index * 2**40) for index in range(len(keys))]
    key_of = {job.job_id: key for job, key in zip(jobs, keys, strict=True)}
    waiting = {job.job_id: job for job in jobs}
    order = KeyedOrder(waiting, lambda job: key_of[job.job_id])
    drained = []
    while (job := order.first()) is not None:
        drained.append(job.job_id)
        del waiting[job.job_id]
    assert drained == sorted(key_of, key=lambda job_id: (key_of[job_id], job_id))


@pytest.mark.parametrize("name", MAKERS)
def test_dead_entries_stay_bounded_under_storms_of_push_and_cancel(name: str) -> None:
    waiting: dict[int, Job] = {}
    order = MAKERS[name](waiting)
    source = random.Random(0)
    for step in range(5000):
        job = make_job(source.randint(1, 2000), arrival=step)
        order.add(job)
        waiting[job.job_id] = job
        if len(waiting) > 10:
            del waiting[source.choice(list(waiting))]
            order.trim()
        assert len(order) <= 2 * len(waiting) + 65


@pytest.mark.parametrize("name", MAKERS)
def test_fitting_gives_the_first_that_fits_within_the_lookahead_and_takes_nothing(name: str) -> None:
    waiting: dict[int, Job] = {}
    order = MAKERS[name](waiting)
    # For each order the jobs come 0, 1, 2: by key, by arrival, and by response ratio.
    jobs = [make_job(10 * 2**i, arrival=i, prompt_tokens=tokens) for i, tokens in enumerate((900, 500, 100))]
    for job in jobs:
        waiting[job.job_id] = job
        order.add(job)
    for _ in range(2):  # the second time everything must still be there
        assert order.fitting(50.0, 2000, 3) is jobs[0]
        assert order.fitting(50.0, 600, 3) is jobs[1]
        assert order.fitting(50.0, 200, 3) is jobs[2]
        assert order.fitting(50.0, 200, 2) is None
        assert order.fitting(50.0, 50, 3) is None


def test_rebuild_enters_what_already_waits() -> None:
    jobs = {
        job.job_id: job for job in (make_job(50, arrival=2.0), make_job(20, arrival=3.0), make_job(70, arrival=1.0))
    }
    first = {name: maker(jobs).first(10.0) for name, maker in MAKERS.items()}
    assert {name: job.predicted_tokens for name, job in first.items() if job} == {
        "keyed": 20,
        "arrival": 70,
        "grouped": 20,
    }
