from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from unary.merge import merge_responses


def response(
    row: int, text: bytes, tokens: int, sequence: int = 0, log_probs: tuple[float, ...] = (0.0,)
) -> dict[str, Any]:
    return {
        "text_output": np.array([[text]], dtype=np.object_),
        "output_log_probs": np.array([[list(log_probs)]], np.float32),
        "num_output_tokens": np.array([[tokens]], np.int32),
        "batch_index": np.array([[row]], np.int32),
        "sequence_index": np.array([[sequence]], np.int32),
    }


def test_rows_come_back_in_order_whatever_order_they_finished_in() -> None:
    merged = merge_responses([response(1, b"two", 2), response(0, b"one", 1)], rows=2)
    assert merged["text_output"].tolist() == [[b"one"], [b"two"]]
    assert merged["num_output_tokens"].tolist() == [[1], [2]]
    assert merged["batch_index"].tolist() == [[0], [1]]


def test_sequences_of_a_row_stand_side_by_side() -> None:
    merged = merge_responses([response(0, b"b", 2, sequence=1), response(0, b"a", 1, sequence=0)], rows=1)
    assert merged["text_output"].tolist() == [[b"a", b"b"]]


def test_shorter_rows_are_padded() -> None:
    merged = merge_responses([response(0, b"a", 1, log_probs=(-1.0, -2.0)), response(1, b"b", 1)], rows=2)
    assert merged["output_log_probs"].tolist() == [[[-1.0, -2.0]], [[0.0, 0.0]]]


def test_a_row_without_an_answer_is_an_error() -> None:
    with pytest.raises(ValueError, match="did not answer all of 2 rows"):
        merge_responses([response(0, b"a", 1)], rows=2)
    with pytest.raises(ValueError, match="did not answer all of 1 rows"):
        merge_responses([], rows=1)
