from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.prior import LengthPrior


def test_starts_from_the_configured_length() -> None:
    prior = LengthPrior(300.0, 100)
    assert prior.mean() == 300
    prediction = prior.prediction()
    assert (prediction.mean, prediction.tail_mean, prediction.source) == (300, 300, "prior")


def test_real_answers_replace_the_configured_length_one_by_one() -> None:
    prior = LengthPrior(300.0, 100)
    for _ in range(8):
        prior.observe(100)
    assert prior.mean() == 200  # 8 of 16
    for _ in range(8):
        prior.observe(100)
    assert prior.mean() == 100


def test_only_the_last_answers_count() -> None:
    prior = LengthPrior(300.0, 20)
    for length in [5000] * 30 + [40] * 20:
        prior.observe(length)
    assert prior.mean() == 40


@given(st.lists(st.integers(1, 3000), min_size=16, max_size=60), st.integers(1, 500), st.integers(0, 2000))
def test_prediction_is_the_clamped_distribution(lengths: list[int], low: int, extra: int) -> None:
    prior = LengthPrior(300.0, 64)
    for length in lengths:
        prior.observe(length)
    clamped = sorted(np.clip(lengths, low, low + extra))
    prediction = prior.prediction(low, low + extra)
    assert prediction.mean == pytest.approx(np.mean(clamped))
    assert prediction.tail_mean == pytest.approx(np.mean(clamped[-max(1, round(len(lengths) * 0.1)) :]))
    tokens = [value for _, value in prediction.quantiles]
    assert tokens == sorted(tokens)
    assert low <= tokens[0] <= tokens[-1] <= low + extra


def test_a_tail_is_longer_than_the_mean() -> None:
    prior = LengthPrior(300.0, 100)
    for length in range(1, 101):
        prior.observe(length)
    prediction = prior.prediction()
    assert prediction.mean == pytest.approx(50.5)
    assert prediction.tail_mean == pytest.approx(95.5)
    assert dict(prediction.quantiles)[0.5] == 50
