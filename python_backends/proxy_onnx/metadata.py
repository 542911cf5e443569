"""proxy.json: what a proxy's output means.

The proxy answers with probabilities over K output-length bins, log-spaced, the last one open: it holds every answer
that had not ended at the labelling cap (censored), whatever its length would have been.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .errors import DistributionError, MetadataError

FORMAT = 1
QUANTILE_LEVELS = (0.1, 0.5, 0.9)
TAIL_LEVEL = 0.9
SUM_TOLERANCE = 1e-2  # FP16 engines return sums off by up to a few parts in a thousand


class LengthSummary(NamedTuple):
    """What a scheduler orders by, all in tokens."""

    mean: float
    tail_mean: float  # mean of the longest tenth (CVaR at TAIL_LEVEL)
    quantiles: tuple[float, ...]  # at QUANTILE_LEVELS


@dataclass(frozen=True, slots=True)
class ProxyMetadata:
    """The validated content of proxy.json.

    bin_edges: K+1 ascending token counts, the first 1; bin k holds lengths n with edges[k] <= n < edges[k+1]. The last
        edge only closes the open bin for interpolation.
    bin_means: K representative token counts, one inside each bin.
    max_length: most tokens of one row, [CLS] and [SEP] included. length_buckets: ascending, the last is max_length.
    head_tokens: of a text that is too long, this many tokens from its start are kept, and as many from its end as fit.
    raw: the whole document, training facts included.
    """

    bin_edges: NDArray[np.float64]
    bin_means: NDArray[np.float64]
    max_length: int
    length_buckets: tuple[int, ...]
    head_tokens: int
    vocab_size: int
    raw: Mapping[str, Any] = field(repr=False, default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> ProxyMetadata:
        """Read proxy.json, or the proxy.json in the folder `path`. Raises MetadataError, which names the file."""
        file = path / "proxy.json" if path.is_dir() else path
        try:
            document = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise MetadataError(f"{file}: cannot be read as JSON: {error}") from error
        try:
            return cls.from_document(document)
        except MetadataError as error:
            raise MetadataError(f"{file}: {error}") from None

    @classmethod
    def from_document(cls, document: Any) -> ProxyMetadata:
        """Validate a parsed proxy.json. Raises MetadataError."""
        if not isinstance(document, dict):
            raise MetadataError(f"must be a JSON object, is {type(document).__name__}")
        if document.get("format") != FORMAT:
            raise MetadataError(f"format is {document.get('format')!r}; this version reads {FORMAT}")
        edges = _numbers(document, "bin_edges")
        means = _numbers(document, "bin_means")
        _check_bins(edges, means)
        max_length = _integer(document, "max_length", low=3, high=8192)
        buckets = _buckets(document, max_length)
        truncation = document.get("truncation")
        if not isinstance(truncation, dict):
            raise MetadataError("truncation must be an object with head_tokens")
        return cls(
            bin_edges=edges,
            bin_means=means,
            max_length=max_length,
            length_buckets=buckets,
            head_tokens=_integer(truncation, "head_tokens", low=0, high=max_length - 3),
            vocab_size=_integer(document, "vocab_size", low=1, high=2**31 - 1),
            raw=document,
        )

    @property
    def bins(self) -> int:
        """Number of bins, K."""
        return len(self.bin_means)

    def bucket(self, length: int) -> int:
        """The smallest length bucket that holds `length` tokens (1 <= length <= max_length)."""
        return next(bucket for bucket in self.length_buckets if bucket >= length)

    def summarize(
        self, probabilities: NDArray[np.floating[Any]] | Sequence[float], limit: float = math.inf
    ) -> LengthSummary:
        """Mean, tail mean and quantiles of one distribution [K], for an answer that is cut at `limit` tokens.

        Give the request's max_tokens as limit: the mean of cut lengths orders better than a cut mean.
        Small rounding errors in the sum are normalised away. Raises DistributionError for a wrong shape, NaN,
        negative probabilities, or a sum further from 1 than SUM_TOLERANCE.
        """
        weights = _distribution(probabilities, self.bins)
        means = np.minimum(self.bin_means, limit)
        cumulative = np.cumsum(weights)
        above = np.clip(cumulative - TAIL_LEVEL, 0.0, weights)  # the bin at the border counts with its share
        return LengthSummary(
            mean=float(weights @ means),
            tail_mean=float(above @ means / above.sum()),
            quantiles=tuple(min(self._quantile(weights, cumulative, level), limit) for level in QUANTILE_LEVELS),
        )

    def _quantile(self, weights: NDArray[np.float64], cumulative: NDArray[np.float64], level: float) -> float:
        """Quantile by log-linear interpolation inside its bin."""
        index = min(int(np.searchsorted(cumulative, level)), self.bins - 1)
        low, high = self.bin_edges[index], self.bin_edges[index + 1]
        before = cumulative[index] - weights[index]
        share = (level - before) / weights[index] if weights[index] > 0 else 1.0
        return float(low * (high / low) ** min(max(share, 0.0), 1.0))


def _distribution(probabilities: NDArray[np.floating[Any]] | Sequence[float], bins: int) -> NDArray[np.float64]:
    weights = np.asarray(probabilities, dtype=np.float64)
    if weights.shape != (bins,):
        raise DistributionError(f"length_distribution has shape {list(weights.shape)}; expected [{bins}]")
    total = float(weights.sum())
    # One comparison covers NaN and infinity too: both make it false.
    if not abs(total - 1.0) <= SUM_TOLERANCE:
        raise DistributionError(f"length_distribution sums to {total:.6g}; expected 1 within {SUM_TOLERANCE}")
    if float(weights.min()) < 0.0:
        raise DistributionError(f"length_distribution has a probability of {weights.min():.6g}; expected at least 0")
    return weights / total


def _numbers(document: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    values = document.get(name)
    plain = isinstance(values, list) and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    if not plain:
        raise MetadataError(f"{name} must be a list of finite numbers")
    return np.asarray(values, dtype=np.float64)


def _integer(document: Mapping[str, Any], name: str, low: int, high: int) -> int:
    value = document.get(name)
    if type(value) is not int or not low <= value <= high:
        raise MetadataError(f"{name} is {value!r}; expected an integer from {low} to {high}")
    return value


def _check_bins(edges: NDArray[np.float64], means: NDArray[np.float64]) -> None:
    if len(means) < 2 or len(edges) != len(means) + 1:
        raise MetadataError(f"{len(edges)} bin_edges and {len(means)} bin_means; expected K+1 and K with K at least 2")
    if edges[0] != 1 or not np.all(np.diff(edges) > 0):
        raise MetadataError("bin_edges must start at 1 and ascend")
    outside = np.flatnonzero((means < edges[:-1]) | (means > edges[1:]))
    if len(outside):
        index = int(outside[0])
        raise MetadataError(
            f"bin_means[{index}] is {means[index]:g}; expected from {edges[index]:g} to {edges[index + 1]:g}"
        )


def _buckets(document: Mapping[str, Any], max_length: int) -> tuple[int, ...]:
    buckets = document.get("length_buckets")
    if not isinstance(buckets, list) or not buckets or not all(type(bucket) is int for bucket in buckets):
        raise MetadataError("length_buckets must be a list of integers")
    if buckets[0] < 1 or sorted(set(buckets)) != buckets or buckets[-1] != max_length:
        raise MetadataError(
            f"length_buckets is {buckets}; expected ascending sizes that end at max_length {max_length}"
        )
    return tuple(buckets)
