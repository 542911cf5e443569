from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from proxy_onnx.errors import DistributionError, MetadataError
from proxy_onnx.metadata import ProxyMetadata
from tests.unit.proxy import small_proxy

METADATA = small_proxy.metadata()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "format is 2; this version reads 1"),
        ({"bin_edges": [1, 4, 16, 64]}, "4 bin_edges and 4 bin_means"),
        ({"bin_edges": [2, 4, 16, 64, 256]}, "start at 1 and ascend"),
        ({"bin_edges": [1, 4, 4, 64, 256]}, "start at 1 and ascend"),
        ({"bin_edges": [1, 4, 16, 64, math.inf]}, "bin_edges must be a list of finite numbers"),
        ({"bin_means": [2, 8, 32, "x"]}, "bin_means must be a list of finite numbers"),
        ({"bin_means": [2, 8, 65, 100]}, r"bin_means\[2\] is 65; expected from 16 to 64"),
        ({"max_length": True}, "max_length is True"),
        ({"max_length": 2}, "max_length is 2; expected an integer from 3 to 8192"),
        ({"length_buckets": [4, 8]}, "end at max_length 12"),
        ({"length_buckets": [8, 4, 12]}, "expected ascending sizes"),
        ({"length_buckets": []}, "length_buckets must be a list of integers"),
        ({"truncation": None}, "truncation must be an object"),
        ({"truncation": {"head_tokens": 10}}, "head_tokens is 10; expected an integer from 0 to 9"),
        ({"vocab_size": 0}, "vocab_size is 0"),
    ],
)
def test_a_document_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        small_proxy.metadata(**changes)


def test_load_takes_the_file_or_its_folder_and_names_it_in_errors(tmp_path: Path) -> None:
    file = tmp_path / "proxy.json"
    file.write_text(json.dumps(small_proxy.DOCUMENT))
    assert ProxyMetadata.load(file).bins == ProxyMetadata.load(tmp_path).bins == 4
    file.write_text(json.dumps({**small_proxy.DOCUMENT, "format": 0}))
    with pytest.raises(MetadataError, match=r"proxy\.json: format is 0"):
        ProxyMetadata.load(tmp_path)
    file.write_text("[]")
    with pytest.raises(MetadataError, match="must be a JSON object, is list"):
        ProxyMetadata.load(tmp_path)
    file.write_text("{")
    with pytest.raises(MetadataError, match="cannot be read as JSON"):
        ProxyMetadata.load(tmp_path)


@pytest.mark.parametrize(("length", "bucket"), [(1, 4), (4, 4), (5, 8), (12, 12)])
def test_the_smallest_bucket_that_fits(length: int, bucket: int) -> None:
    assert METADATA.bucket(length) == bucket


def test_mean_is_the_weighted_mean_of_the_bins() -> None:
    assert METADATA.summarize([0.5, 0.25, 0.25, 0]).mean == pytest.approx(0.5 * 2 + 0.25 * 8 + 0.25 * 32)


def test_the_tail_is_the_longest_tenth() -> None:
    # The longest tenth: 0.05 in the last bin, and 0.05 of the bin before it.
    assert METADATA.summarize([0.2, 0.25, 0.5, 0.05]).tail_mean == pytest.approx((0.05 * 100 + 0.05 * 32) / 0.1)


def test_quantiles_are_interpolated_in_the_logarithm() -> None:
    low, median, high = METADATA.summarize([0.2, 0.6, 0.2, 0]).quantiles
    assert low == pytest.approx(1 * 4**0.5)
    assert median == pytest.approx(4 * 4**0.5)
    assert high == pytest.approx(16 * 4**0.5)


def test_a_limit_cuts_every_bin_not_the_mean() -> None:
    free = METADATA.summarize([0.5, 0, 0, 0.5])
    cut = METADATA.summarize([0.5, 0, 0, 0.5], limit=20)
    assert free.mean == pytest.approx(51)
    assert cut.mean == pytest.approx(0.5 * 2 + 0.5 * 20)  # min(mean, limit) would be 20
    assert cut.tail_mean == pytest.approx(20)
    assert max(cut.quantiles) == 20


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 0.5, 0.0], r"shape \[3\]; expected \[4\]"),
        ([[0.25] * 4], r"shape \[1, 4\]"),
        ([0.5, 0.5, 0.5, 0.5], "sums to 2"),
        ([math.nan, 0.5, 0.25, 0.25], "sums to nan"),
        ([math.inf, 0.5, 0.25, 0.25], "sums to inf"),
        ([1.5, -0.5, 0.0, 0.0], "probability of -0.5"),
    ],
)
def test_what_is_no_distribution_is_refused(values: list[Any], message: str) -> None:
    with pytest.raises(DistributionError, match=message):
        METADATA.summarize(values)


@given(arrays(np.float64, 4, elements=st.floats(0, 1)).filter(lambda weights: weights.sum() > 1e-3))
def test_summaries_stay_inside_the_bins_and_in_order(weights: Any) -> None:
    summary = METADATA.summarize(weights / weights.sum())
    assert 2 - 1e-9 <= summary.mean <= summary.tail_mean + 1e-9 <= 100 + 1e-6
    assert list(summary.quantiles) == sorted(summary.quantiles)
    assert summary.quantiles[0] >= 1
    assert summary.quantiles[-1] <= 256


def test_the_rounding_of_an_fp16_engine_is_tolerated() -> None:
    rounded = np.array([0.3337, 0.3337, 0.3337, 0.0], np.float16)
    assert METADATA.summarize(rounded).mean == pytest.approx((2 + 8 + 32) / 3, rel=1e-3)
