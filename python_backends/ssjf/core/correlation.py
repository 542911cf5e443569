"""Rank correlation."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def kendall_tau_b(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Kendall's τ_b of two vectors [n], from -1 to 1, corrected for ties; None if either is constant.

    As Knight (1966): in the order of the first vector, discordant pairs are inversions of the second. They are counted
    by comparing all ranks, O(n²): for the few hundred values here, a matrix of bytes beats a merge sort.
    """
    size = len(first)
    order = np.lexsort((second, first))
    first, second = first[order], second[order]
    new_first, new_second = first[1:] != first[:-1], second[1:] != second[:-1]
    by_second = np.argsort(second)
    ascending = second[by_second]
    dense = _ranks(ascending[1:] != ascending[:-1])
    tied_first, tied_second = _tied(_ranks(new_first)), _tied(dense)
    tied_both = _tied(_ranks(new_first | new_second))
    pairs = size * (size - 1) // 2
    if pairs in (tied_first, tied_second):
        return None
    ranks = np.empty(size, np.min_scalar_type(size - 1))
    ranks[by_second] = dense
    discordant = np.count_nonzero((ranks[:, None] > ranks) & _later(size))
    concordant = pairs - tied_first - tied_second + tied_both - discordant
    return float((concordant - discordant) / (float(pairs - tied_first) * float(pairs - tied_second)) ** 0.5)


def _ranks(differs: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Dense ranks of n sorted values, given which of the last n - 1 differ from the one before."""
    ranks = np.zeros(len(differs) + 1, np.intp)
    np.cumsum(differs, out=ranks[1:])
    return ranks


def _tied(ranks: NDArray[np.intp]) -> int:
    """Pairs of equal ranks."""
    sizes = np.bincount(ranks)
    return (int(sizes @ sizes) - len(ranks)) // 2


@lru_cache(maxsize=1)  # the window soon has its full size
def _later(size: int) -> NDArray[np.bool_]:
    """Which columns come after their row, [size, size]."""
    return np.triu(np.ones((size, size), np.bool_), 1)
