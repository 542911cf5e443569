"""Fits a head on the frozen encoder. numpy only, seconds for thousands of prompts, no torch.

Two linear stages. First ridge regression from the pooled features and n-grams of tokens to a few views of the length
(its logarithm, whether it was cut, whether it is short or long ...): strong regularisation, one closed form. Then
multinomial logistic regression from those numbers to the bins. The second stage sees only predictions that the first
made for prompts it was not fitted on, so it learns how far they can be trusted: that is what calibrates the
distribution. Each stage is linear, so together they are the two-step head of graph.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bins import LengthBins
from .calibrate import SMOOTHING, logistic
from .data import FlatLabels
from .grams import GramRows
from .head import Head

Matrix = NDArray[np.float64]
_FOLDS = 5
GRAM_WEIGHT = 1.0  # of the n-grams' kernel beside the features', both 1 on the diagonal
TRUST = 0.8  # of the lesson beside the prompt's own answers
TAUGHT_RIDGE = 0.3  # less than without a lesson, which says more than one noisy answer
_SPREAD_FLOOR = 0.1  # of the median spread of the features
_SHARP = 1e-3  # smoothing that leaves every label in its own bin


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Chosen by cross-validation on the training prompts of the shipped proxy (docs/proxy-model-card.md)."""

    ridge: float = 1.0  # penalty per feature, features standardised
    logistic: float = 1e-3  # penalty on the second stage's weights, per prompt
    taught_ridge: float = TAUGHT_RIDGE  # in its place where there is a lesson
    smoothing: float = SMOOTHING  # width of the soft labels, in natural-log length
    seed: int = 0  # of the folds between the stages


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a head is fitted on: pooled features [n, D], and the n-grams' rows with their kernel [n, n] or none."""

    features: NDArray[np.floating[Any]]
    grams: GramRows | None = None
    kernel: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a better informed predictor says: about the chosen prompts (never from their own answers) [chosen, R], and
    about other prompts, which nobody measured, at `places` of the inputs [places, R].
    """

    chosen: Matrix
    others: Matrix
    places: NDArray[np.int64]

    def targets(self, chosen: NDArray[np.int64], views: Matrix) -> tuple[NDArray[np.int64], Matrix]:
        """All prompts to learn from and what to learn of each [prompts, R]; views: of the chosen ones' answers."""
        own = TRUST * self.chosen + (1 - TRUST) * views
        return np.concatenate([chosen, self.places]), np.concatenate([own, self.others])


def fit_head(
    inputs: Inputs,
    chosen: NDArray[np.int64],
    labels: FlatLabels,
    bins: LengthBins,
    settings: FitSettings,
    lesson: Lesson | None = None,
) -> Head:
    """Head from the chosen prompts, whose samples `labels` holds; several samples of a prompt are averaged.

    With a lesson, the first stage learns from what a better informed predictor says, about more prompts; the second
    sees measured lengths only.
    """
    views = average_views(labels, bins, len(chosen))
    places, penalty = chosen, settings.ridge
    if lesson is not None:
        places, views = lesson.targets(chosen, views)
        penalty = settings.taught_ridge
    scaled, centre, spread = _standardised(inputs.features[places])
    kernel = kernel_of(inputs, places)
    narrow = out_of_fold(kernel, views, penalty, settings.seed)[: len(chosen)]
    weight, bias = logistic(narrow, soft_targets(labels, bins, settings.smoothing), settings.logistic)
    duals, mean = fit_ridge(kernel, views, penalty)
    reduce = (scaled.T @ duals) / scaled.shape[1] / spread[:, None]
    table = inputs.grams.table(places, GRAM_WEIGHT * duals) if inputs.grams else np.zeros((0, 0), np.float32)
    return Head(
        reduce_weight=reduce.astype(np.float32),
        reduce_bias=(mean - centre @ reduce).astype(np.float32),
        expand_weight=weight.astype(np.float32),
        expand_bias=bias.astype(np.float32),
        grams=table,
    )


def kernel_of(inputs: Inputs, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """How alike prompts are, by features and by n-grams where there are any [places, places]."""
    scaled, _, _ = _standardised(inputs.features[places])
    kernel = scaled @ scaled.T / np.float32(scaled.shape[1])
    if inputs.kernel is not None:
        kernel += np.float32(GRAM_WEIGHT) * inputs.kernel[np.ix_(places, places)]
    return np.asarray(kernel)


def average_views(labels: FlatLabels, bins: LengthBins, count: int) -> Matrix:
    """What the samples say about each prompt's length, as the first stage is to predict it [count, R]."""
    return _average(_views(labels, bins), labels.prompt, count)


def fit_linear(
    features: NDArray[np.floating[Any]], targets: Matrix, penalty: float
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Ridge regression from features [n, D] to targets [n, R]: weight [D, R] and bias [R] on raw features."""
    scaled, centre, spread = _standardised(features)
    duals, mean = fit_ridge(scaled @ scaled.T / np.float32(scaled.shape[1]), targets, penalty)
    weight = (scaled.T @ duals) / scaled.shape[1] / spread[:, None]
    return weight.astype(np.float32), (mean - centre @ weight).astype(np.float32)


def soft_targets(labels: FlatLabels, bins: LengthBins, smoothing: float) -> Matrix:
    """What a perfect proxy would answer as far as the samples tell, [prompts, K]; rows sum to 1."""
    return _average(_soft_labels(labels, bins, smoothing), labels.prompt, int(labels.prompt.max()) + 1)


def _views(labels: FlatLabels, bins: LengthBins) -> Matrix:
    """What the first stage predicts about a length, [samples, R]; thresholds split usual workloads into thirds.

    Of an answer that was cut before the bins' cap, what is to be expected given that it got so far.
    """
    own = _views_of(labels.tokens.astype(np.float64), labels.censored)
    early = bins.cut_early(labels.tokens, labels.censored)
    if early.any():
        per_bin = _views_of(bins.means, np.arange(bins.count) == bins.count - 1)
        own[early] = _soft_labels(labels, bins, _SHARP)[early] @ per_bin
    return own


def _views_of(tokens: Matrix, is_open: NDArray[np.bool_]) -> Matrix:
    steps = [tokens <= limit for limit in (12, 50, 150)]
    columns = [np.log(tokens), is_open, tokens / 300.0, *steps]
    return np.stack(columns, axis=1, dtype=np.float64, casting="unsafe")


def _soft_labels(labels: FlatLabels, bins: LengthBins, width: float) -> Matrix:
    """Each sample's bin, spread over its neighbours by a Gaussian in log length, [samples, K].

    One answer is one draw: the next answer to the same prompt may fall next door. The open bin is not spread: it is far
    from its neighbours in meaning (looping answers), however close in log length. An answer that was cut before the
    bins' cap may have ended in any bin from there on: it gets these bins' shares among all answers.
    """
    places = np.log(bins.means)
    kernel = np.exp(-0.5 * ((places[:, None] - places[None, :]) / width) ** 2)
    kernel[-1] = np.eye(bins.count)[-1]
    kernel /= kernel.sum(axis=1, keepdims=True)
    index = bins.index(labels.tokens, labels.censored)
    early = bins.cut_early(labels.tokens, labels.censored)
    rows = np.asarray(kernel[index])
    if early.any():
        rows[early] = _beyond(_kaplan_meier(index, early, bins.count))[index[early]]
    return rows


def _kaplan_meier(index: NDArray[np.int64], early: NDArray[np.bool_], count: int) -> Matrix:
    """Share of answers in each bin, [K], when `early` ones are known only to lie in their bin or above it."""
    ended = np.bincount(index[~early], minlength=count)
    dropped = np.bincount(index[early], minlength=count)
    at_risk = len(index) - np.concatenate([[0], np.cumsum(ended + dropped)[:-1]]) - dropped
    hazard = np.divide(ended, at_risk, out=np.zeros(count), where=at_risk > 0)
    hazard[-1] = 1.0
    survived = np.concatenate([[1.0], np.cumprod(1.0 - hazard)[:-1]])
    return np.asarray(survived * hazard)


def _beyond(shares: Matrix) -> Matrix:
    """Row j: `shares` of the bins from j on, summing to 1, [K, K]; all on the last bin where there are none."""
    rows = np.triu(np.tile(shares, (len(shares), 1)))
    rows[rows.sum(axis=1) == 0, -1] = 1.0
    return np.asarray(rows / rows.sum(axis=1, keepdims=True))


def _average(rows: Matrix, prompt: NDArray[np.int64], count: int) -> Matrix:
    """Mean of the rows of each prompt, [count, columns]."""
    totals = np.zeros((count, rows.shape[1]))
    np.add.at(totals, prompt, rows)
    return totals / np.bincount(prompt, minlength=count)[:, None]


def out_of_fold(kernel: NDArray[np.float32], views: Matrix, penalty: float, seed: int) -> Matrix:
    """First-stage predictions for each prompt by a ridge that did not see it [prompts, R]."""
    order = np.random.default_rng(seed).permutation(len(kernel))
    predicted = np.empty_like(views)
    for part in range(_FOLDS):
        held = order[part::_FOLDS]
        rest = np.setdiff1d(order, held)
        duals, mean = fit_ridge(kernel[np.ix_(rest, rest)], views[rest], penalty)
        predicted[held] = kernel[np.ix_(held, rest)] @ duals + mean
    return predicted


def fit_ridge(kernel: NDArray[np.float32], targets: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    """Ridge regression in its dual form: a number per prompt and view [n, R], and the views' means [R]."""
    mean = targets.mean(axis=0)
    ridge = kernel + np.float32(penalty) * np.eye(len(kernel), dtype=np.float32)
    return np.linalg.solve(ridge, (targets - mean).astype(np.float32)).astype(np.float64), mean


def _standardised(
    features: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Features [n, D] with mean 0 and spread 1, their centre and their spread."""
    narrow = np.asarray(features, np.float32)
    centre, spread = narrow.mean(axis=0), narrow.std(axis=0)
    # Prompts of one template leave some features all but constant: without a floor their noise would be blown up.
    spread = spread + np.float32(_SPREAD_FLOOR * float(np.median(spread)) + 1e-9)
    return (narrow - centre) / spread, centre, spread
