"""How good predictions are: rank correlation first, because that is what scheduling gains follow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 512  # rows of the pair matrix at a time: keeps 10,000 prompts within tens of MB


def kendall_tau_b(left: NDArray[np.floating[Any]], right: NDArray[np.floating[Any]]) -> float:
    """Kendall's tau_b of two series [n], ties counted; NaN when either is constant. O(n²) time."""
    concordance, left_pairs, right_pairs = _pair_sums(np.asarray(left, np.float64), np.asarray(right, np.float64))
    if left_pairs == 0 or right_pairs == 0:
        return float("nan")
    return float(concordance / np.sqrt(left_pairs * right_pairs))


def pairwise_accuracy(predicted: NDArray[np.floating[Any]], true: NDArray[np.floating[Any]]) -> float:
    """Share of pairs of different true length that are ordered rightly; a tie in the prediction counts half."""
    concordance, _, true_pairs = _pair_sums(np.asarray(predicted, np.float64), np.asarray(true, np.float64))
    return float((concordance / true_pairs + 1) / 2) if true_pairs else float("nan")


def _pair_sums(left: NDArray[np.float64], right: NDArray[np.float64]) -> tuple[float, float, float]:
    """Over ordered pairs: concordant minus discordant, pairs not tied in left, pairs not tied in right."""
    if left.shape != right.shape or left.ndim != 1:
        raise ValueError(f"series have shapes {left.shape} and {right.shape}; expected the same length")
    concordance = left_pairs = right_pairs = 0.0
    for start in range(0, len(left), _BLOCK):
        block = slice(start, start + _BLOCK)
        first = np.sign(left[block, None] - left[None, :])
        second = np.sign(right[block, None] - right[None, :])
        concordance += float(np.sum(first * second))
        left_pairs += float(np.count_nonzero(first))
        right_pairs += float(np.count_nonzero(second))
    return concordance, left_pairs, right_pairs


def mean_absolute_error(predicted: NDArray[np.floating[Any]], true: NDArray[np.floating[Any]]) -> float:
    """Mean of |predicted - true|, in the unit of both."""
    return float(np.mean(np.abs(predicted - true)))


def calibration_error(probabilities: NDArray[np.floating[Any]], bins: NDArray[np.integer[Any]]) -> float:
    """Largest gap between the mean predicted CDF and the observed share of lengths, over all bin borders [0, 1].

    probabilities: [n, K]; bins: the bin that came true [n].
    """
    count = probabilities.shape[1]
    predicted = np.cumsum(probabilities, axis=1).mean(axis=0)
    observed = np.cumsum(np.bincount(bins, minlength=count)) / len(bins)
    return float(np.max(np.abs(predicted - observed)))


def log_loss(probabilities: NDArray[np.floating[Any]], bins: NDArray[np.integer[Any]]) -> float:
    """Mean negative log likelihood of the bin that came true, in nats."""
    chosen = probabilities[np.arange(len(bins)), bins]
    return float(-np.mean(np.log(np.maximum(chosen, 1e-12))))


def quantile_coverage(
    probabilities: NDArray[np.floating[Any]], bins: NDArray[np.integer[Any]], level: float, rng: np.random.Generator
) -> float:
    """Share of lengths below the predicted `level` quantile; a calibrated proxy gives `level`.

    Lengths are known to their bin only, so the probability integral transform is spread inside it at random.
    """
    cumulative = np.cumsum(probabilities, axis=1)
    rows = np.arange(len(bins))
    upper = cumulative[rows, bins]
    place = upper - probabilities[rows, bins] * rng.random(len(bins))
    return float(np.mean(place <= level))


def accuracy_and_macro_f1(predicted: NDArray[np.integer[Any]], true: NDArray[np.integer[Any]]) -> tuple[float, float]:
    """Share of right classes, and the mean F1 over the classes that occur in `true` or `predicted`."""
    scores = []
    for label in np.union1d(predicted, true):
        hits = np.sum((predicted == label) & (true == label))
        scores.append(2 * hits / (np.sum(predicted == label) + np.sum(true == label)))
    return float(np.mean(predicted == true)), float(np.mean(scores))
