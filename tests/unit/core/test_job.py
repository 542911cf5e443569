from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.core.job import LengthPrediction
from tests.unit.core.build import make_job


@pytest.mark.parametrize(
    ("predicted", "expected"), [(5.0, 10.0), (10.0, 10.0), (30.5, 30.5), (50.0, 50.0), (900.0, 50.0), (math.inf, 50.0)]
)
def test_prediction_is_clamped_to_the_requests_limits(predicted: float, expected: float) -> None:
    job = make_job(predicted, tail=predicted, min_tokens=10, max_tokens=50)
    assert job.predicted_tokens == expected
    assert job.tail_tokens == expected


def test_a_prediction_that_is_no_number_counts_as_the_longest_answer() -> None:
    assert make_job(math.nan, max_tokens=77).predicted_tokens == 77


@given(st.floats(allow_nan=True, allow_infinity=True), st.integers(0, 100), st.integers(0, 100))
def test_clamped_prediction_is_always_within_limits(predicted: float, low: int, extra: int) -> None:
    job = make_job(predicted, min_tokens=low, max_tokens=low + extra)
    assert low <= job.predicted_tokens <= low + extra


def test_kv_tokens_count_prompt_once_and_every_sequence() -> None:
    assert make_job(100, prompt_tokens=30, sequences=4).kv_tokens == 30 + 4 * 100


def test_work_counts_sequences_and_weighs_the_prefill() -> None:
    assert make_job(1, prompt_tokens=200, sequences=3).work(10, 0.5) == 3 * 10 + 100


def test_a_prediction_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        LengthPrediction(1, 1).mean = 2  # type: ignore[misc]
