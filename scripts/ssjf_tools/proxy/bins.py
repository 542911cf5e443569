"""Log-spaced bins over output lengths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

OPEN_BIN_FACTOR = 4.0  # nominal end of the open bin, in caps: where interpolation stops


@dataclass(frozen=True, slots=True)
class LengthBins:
    """K bins; the last is open and holds every answer that was cut at the cap (censored) or is as long as the cap.

    edges: K+1 ascending token counts from 1; bin k holds edges[k] <= n < edges[k+1]. means: one length per bin.
    """

    edges: NDArray[np.float64]
    means: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Number of bins, K."""
        return len(self.means)

    def index(self, tokens: NDArray[np.integer[Any]], censored: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Bin of each length [n]; for an answer cut at or after the cap the open bin, for one cut before it the bin of
        the cut, where or above which its true length lies. Raises ValueError below 1 token.
        """
        if len(tokens) and tokens.min() < 1:
            raise ValueError(f"length {tokens.min()}; expected at least 1 token")
        place = np.searchsorted(self.edges, tokens, side="right") - 1
        return np.where(censored & (tokens >= self.edges[-2]), self.count - 1, np.minimum(place, self.count - 1))

    def cut_early(self, tokens: NDArray[np.integer[Any]], censored: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Which answers were cut before the cap of these bins, so that their bin is not known [n]."""
        return np.asarray(censored & (tokens < self.edges[-2]))


def log_edges(cap: int, count: int) -> NDArray[np.float64]:
    """Whole-token edges from 1 to `cap`, evenly spaced in the logarithm, and the end of the open bin.

    Where even spacing is finer than one token, bins merge, so there are at most `count` of them below the cap.
    """
    closed = np.unique(np.round(np.geomspace(1, cap, count + 1)))
    return np.append(closed, cap * OPEN_BIN_FACTOR)


def fit_bins(cap: int, count: int, tokens: NDArray[np.integer[Any]], censored: NDArray[np.bool_]) -> LengthBins:
    """Bins whose means are those of the training lengths; a bin without any gets its geometric middle.

    The open bin's mean is the cap plus the mean residual life: how long answers go on, on average, once they are in the
    last octave before the cap, if they end there as seldom as seen (exponential tail, censored answers counted as
    survivors). At most twice the cap: beyond it nothing was measured.
    """
    edges = log_edges(cap, count)
    means = np.sqrt(edges[:-1] * np.maximum(edges[1:] - 1, edges[:-1]))
    bins = LengthBins(edges, means)
    place = bins.index(tokens, censored)
    for index in range(bins.count - 1):
        inside = tokens[(place == index) & ~censored]
        if len(inside):
            means[index] = inside.mean()
    means[-1] = min(cap + _residual_life(cap, tokens, censored), 2.0 * cap)
    return LengthBins(edges, means)


def _residual_life(cap: int, tokens: NDArray[np.integer[Any]], censored: NDArray[np.bool_]) -> float:
    start = cap / 2
    late = tokens[tokens > start]
    ended = int(np.sum(~censored & (tokens > start) & (tokens < cap)))
    return float(np.sum(np.minimum(late, cap) - start) / max(ended, 1))
