from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.correlation import kendall_tau_b

pairs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=2, max_size=40)


@given(pairs)
def test_equals_the_definition(values: list[tuple[int, int]]) -> None:
    concordant = discordant = untied_first = untied_second = 0
    for i, (a, b) in enumerate(values):
        for c, d in values[:i]:
            concordant += (a - c) * (b - d) > 0
            discordant += (a - c) * (b - d) < 0
            untied_first += a != c
            untied_second += b != d
    first, second = np.array(values, dtype=float).T
    if untied_first and untied_second:
        expected = (concordant - discordant) / (untied_first * untied_second) ** 0.5
        assert kendall_tau_b(first, second) == pytest.approx(expected)
    else:
        assert kendall_tau_b(first, second) is None


def test_extremes() -> None:
    values = np.arange(10.0)
    assert kendall_tau_b(values, values * 3) == 1
    assert kendall_tau_b(values, -values) == -1
