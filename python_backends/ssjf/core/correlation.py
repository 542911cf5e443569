"""Rank correlation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def kendall_tau_b(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    """Kendall's τ_b of two vectors [n], from -1 to 1, corrected for ties; None if either is constant.

    Compares all pairs, O(n²) time and memory: for the few hundred values here, matrices of single bytes beat the
    O(n log n) algorithm (0.1 ms for 256). In single precision, which takes half as long; closer values are ties.
    """
    first, second = first.astype(np.float32), second.astype(np.float32)
    first_less = first[:, None] < first
    second_less = second[:, None] < second
    untied_first, untied_second = np.count_nonzero(first_less), np.count_nonzero(second_less)
    if not untied_first or not untied_second:
        return None
    concordant = np.count_nonzero(first_less & second_less)
    discordant = np.count_nonzero(first_less & (second[:, None] > second))
    return float((concordant - discordant) / (float(untied_first) * float(untied_second)) ** 0.5)
