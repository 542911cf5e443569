"""How fast the machine was while it was full, and the load that this made of the arrivals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf_tools.bench.live.occupancy import full_tokens_per_s, realised_load
from tests.unit.bench.build import TOKEN_S, make_run, one_slot


@given(
    st.lists(st.tuples(st.floats(0, 3), st.integers(1, 60)), min_size=1, max_size=30),
    st.floats(0.01, 1.0),
)
def test_one_slot_makes_tokens_at_its_pace_however_much_comes(jobs: list[tuple[float, int]], token_s: float) -> None:
    arrivals = np.cumsum([gap for gap, _ in jobs]).tolist()
    tokens = [count for _, count in jobs]
    found = full_tokens_per_s(one_slot(arrivals, tokens, list(range(len(jobs))), token_s), 1)
    # A request's first token comes a token's time after it began, and the rest is spread over what is left.
    assert found == pytest.approx(1 / token_s, rel=1e-3)


def test_only_while_all_slots_are_taken() -> None:
    # Two slots: both taken from 2 to 4 s, in which one makes a token every 0.1 s and the other every 0.2 s.
    fast = make_run([0.0], [0.0], [40], 0.1)
    slow = make_run([2.0], [2.0], [10], 0.2)
    both = type(fast)(*(np.concatenate([getattr(fast, name), getattr(slow, name)]) for name in fast.__slots__))
    assert full_tokens_per_s(both, 2) == pytest.approx((20 + 10) / 2, rel=0.1)
    assert full_tokens_per_s(both, 3) is None


def test_who_failed_or_does_not_know_tells_nothing() -> None:
    run = one_slot([0.0, 0.0], [10, 10], [0, 1])
    run.end_s[1] = math.nan
    assert full_tokens_per_s(run, 1) == pytest.approx(1 / TOKEN_S, rel=1e-3)
    run.queue_s[:] = math.nan  # the engine asked directly
    assert full_tokens_per_s(run, 1) is None
    assert realised_load(run, 1) is None


def test_load_is_tokens_asked_for_over_tokens_that_the_machine_can_make() -> None:
    arrivals = np.arange(101) * 2.0  # ten tokens every 2 s, where ten take 1 s
    run = one_slot(arrivals.tolist(), [10] * 101, list(range(101)))
    assert realised_load(run, 1) == pytest.approx(0.5, rel=0.02)
    slow = one_slot(arrivals.tolist(), [10] * 101, list(range(101)), 2 * TOKEN_S)
    assert realised_load(slow, 1) == pytest.approx(1.0, rel=0.02)


def test_a_burst_has_no_load() -> None:
    assert realised_load(one_slot([0.0, 0.0], [10, 10], [0, 1]), 1) is None
