from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from proxy_onnx.batching import check_rows, make_batches
from proxy_onnx.errors import DistributionError, ProxyError, RequestError, SettingsError
from proxy_onnx.predict import Answer, Predictor
from proxy_onnx.settings import ProxySettings
from tests.unit.proxy import small_proxy

METADATA = small_proxy.metadata()


class FirstTokenRuntime:
    """Puts all probability on bin (first token mod 4), and NaN on token 31; records the shapes it ran."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        assert ids.shape == mask.shape
        self.shapes.append(ids.shape)
        output = np.zeros((len(ids), 4), np.float32)
        output[np.arange(len(ids)), ids[:, 0] % 4] = 1
        output[ids[:, 0] == 31] = np.nan
        return output


def row(first: int, length: int, width: int | None = None) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    width = width or length
    ids = np.full((1, width), first, np.int32)
    return ids, (np.arange(width)[None, :] < length).astype(np.int32)


def chosen_bins(answer: Answer) -> list[int]:
    assert not isinstance(answer, ProxyError)
    return [int(index) for index in answer.argmax(axis=1)]


def test_one_run_per_bucket_and_answers_in_order() -> None:
    runtime = FirstTokenRuntime()
    answers = Predictor(runtime, METADATA, 32).predict([row(5, 3), row(6, 10), row(7, 4), row(8, 2)])
    assert [chosen_bins(answer) for answer in answers] == [[1], [2], [3], [0]]
    assert runtime.shapes == [(3, 4), (1, 12)]


def test_padding_that_the_caller_added_is_not_computed() -> None:
    runtime = FirstTokenRuntime()
    Predictor(runtime, METADATA, 32).predict([row(5, 3, width=500)])
    assert runtime.shapes == [(1, 4)]


def test_rows_of_one_request_go_by_their_own_lengths() -> None:
    ids = np.array([[5] * 8, [6] * 8], np.int32)
    mask = np.array([[1] * 2 + [0] * 6, [1] * 8], np.int32)
    runtime = FirstTokenRuntime()
    (answer,) = Predictor(runtime, METADATA, 32).predict([(ids, mask)])
    assert chosen_bins(answer) == [1, 2]
    assert runtime.shapes == [(1, 4), (1, 8)]


def test_without_batches_every_row_is_run_as_long_as_it_is() -> None:
    runtime = FirstTokenRuntime()
    ids = np.array([[6] * 8, [7] * 8], np.int32)
    mask = np.array([[1] * 2 + [0] * 6, [1] * 8], np.int32)
    answers = Predictor(runtime, METADATA, None).predict([row(5, 3, width=500), (ids, mask)])
    assert [chosen_bins(answer) for answer in answers] == [[1], [2, 3]]
    assert runtime.shapes == [(1, 3), (1, 2), (1, 8)]


def test_batches_are_bounded() -> None:
    runtime = FirstTokenRuntime()
    answers = Predictor(runtime, METADATA, 2).predict([row(number, 3) for number in range(5, 10)])
    assert runtime.shapes == [(2, 4), (2, 4), (1, 4)]
    assert [chosen_bins(answer) for answer in answers] == [[1], [2], [3], [0], [1]]


@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        (np.ones((1, 4), np.int64), np.ones((1, 4), np.int32), "input_ids has dtype int64"),
        (np.ones((1, 4), np.int32), np.ones((1, 4), np.float32), "attention_mask has dtype float32"),
        (np.ones(4, np.int32), np.ones(4, np.int32), r"input_ids has shape \[4\]"),
        (np.ones((1, 0), np.int32), np.ones((1, 0), np.int32), r"input_ids has shape \[1, 0\]"),
        (np.ones((1, 4), np.int32), np.ones((1, 5), np.int32), r"attention_mask has shape \[1, 5\]"),
        (np.full((1, 4), -1, np.int32), np.ones((1, 4), np.int32), "input_ids has id -1; expected from 0 to 31"),
        (np.full((1, 4), 32, np.int32), np.ones((1, 4), np.int32), "input_ids has id 32"),
        (np.ones((1, 4), np.int32), np.full((1, 4), 2, np.int32), "other than 0 and 1"),
        (np.ones((2, 4), np.int32), np.array([[1] * 4, [0] * 4], np.int32), "row 1 has no token"),
        (np.ones((1, 4), np.int32), np.array([[1, 0, 1, 0]], np.int32), "row 0 has a 0 before a 1"),
        (np.ones((1, 13), np.int32), np.ones((1, 13), np.int32), "13 tokens; expected at most 12"),
    ],
)
def test_a_bad_request_gets_its_own_error_and_its_neighbours_their_answers(
    ids: NDArray[Any], mask: NDArray[Any], message: str
) -> None:
    first, bad, last = Predictor(FirstTokenRuntime(), METADATA, 32).predict([row(5, 3), (ids, mask), row(7, 3)])
    assert chosen_bins(first) == [1]
    assert chosen_bins(last) == [3]
    with pytest.raises(RequestError, match=message):
        raise_if_error(bad)


def test_a_nan_from_the_model_is_an_error_for_that_request_only() -> None:
    good, bad = Predictor(FirstTokenRuntime(), METADATA, 32).predict([row(5, 3), row(31, 3)])
    assert chosen_bins(good) == [1]
    with pytest.raises(DistributionError, match="sums to nan"):
        raise_if_error(bad)


def test_a_model_of_another_size_than_its_metadata_is_refused() -> None:
    metadata = small_proxy.metadata(bin_edges=[1, 2, 3], bin_means=[1, 2])
    with pytest.raises(DistributionError, match=r"model.onnx and proxy.json do not fit"):
        Predictor(FirstTokenRuntime(), metadata, 32).predict([row(5, 3)])


def test_no_requests_no_run() -> None:
    runtime = FirstTokenRuntime()
    assert Predictor(runtime, METADATA, 32).predict([]) == []
    assert runtime.shapes == []


@given(st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=3), max_size=6), st.integers(1, 4))
def test_every_row_is_in_exactly_one_batch_with_all_its_tokens(requests: list[list[int]], most: int) -> None:
    rows = []
    for lengths in requests:
        mask = (np.arange(12)[None, :] < np.array(lengths)[:, None]).astype(np.int32)
        rows.append(check_rows(np.ones((len(lengths), 12), np.int32), mask, METADATA))
    seen = []
    for batch in make_batches(rows, METADATA, most):
        assert len(batch.places) <= most
        assert batch.ids.shape == batch.mask.shape
        for place, mask_row in zip(batch.places, batch.mask, strict=True):
            seen.append(place)
            assert mask_row.sum() == requests[place[0]][place[1]]
    assert sorted(seen) == [
        (request, index) for request, lengths in enumerate(requests) for index in range(len(lengths))
    ]


@pytest.mark.parametrize("changes", [{"proxy_threads": 0}, {"proxy_threads": 65}])
def test_settings_out_of_range_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match=f"{next(iter(changes))} is {next(iter(changes.values()))}; expected"):
        ProxySettings(**changes)  # type: ignore[arg-type]


def raise_if_error(answer: Answer) -> None:
    if isinstance(answer, ProxyError):
        raise answer
