"""Cross-validation over prompts: no prompt is ever scored by a head that saw one of its answers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .data import FlatLabels

Fit = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]  # train, held-out indices -> [held, K]


def fold_indices(count: int, folds: int, seed: int) -> list[NDArray[np.int64]]:
    """Held-out indices of each fold, a random partition of range(count)."""
    order = np.random.default_rng(seed).permutation(count)
    return [order[part::folds] for part in range(folds)]


def cross_validate(count: int, bins: int, folds: int, seed: int, fit: Fit) -> NDArray[np.float64]:
    """Distribution [count, bins] for every prompt, from a fit on the other folds."""
    held_out = np.empty((count, bins))
    for held in fold_indices(count, folds, seed):
        held_out[held] = fit(np.setdiff1d(np.arange(count), held), held)
    return held_out


def select(labels: FlatLabels, chosen: NDArray[np.int64]) -> FlatLabels:
    """The samples of the chosen prompts, renumbered to their place in `chosen`."""
    place = np.full(int(labels.prompt.max()) + 1, -1)
    place[chosen] = np.arange(len(chosen))
    keep = place[labels.prompt] >= 0
    return FlatLabels(place[labels.prompt][keep], labels.tokens[keep], labels.censored[keep])
