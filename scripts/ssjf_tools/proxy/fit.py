"""Fits a head on the frozen encoder. numpy only, seconds for thousands of prompts, no torch.

Two linear stages. First ridge regression from the pooled features to a few views of the length (its logarithm, whether
it was cut, whether it is short or long ...): strong regularisation, one closed form. Then multinomial logistic
regression from those numbers to the bins. The second stage sees only predictions that the first made for prompts it was
not fitted on, so it learns how far they can be trusted: that is what calibrates the distribution. Each stage is linear,
so together they are the two-step head of graph.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bins import LengthBins
from .data import FlatLabels
from .head import Head, softmax

Matrix = NDArray[np.float64]
_FOLDS = 5
_NEWTON_STEPS = 30
_HALVINGS = 20
_DEAD = 1e-6  # spread of a view, which are all of the order of 1
_SPREAD_FLOOR = 0.1  # of the median spread of the features
_SHARP = 1e-3  # smoothing that leaves every label in its own bin


@dataclass(frozen=True, slots=True)
class FitSettings:
    """Chosen by cross-validation on the training prompts of the shipped proxy (docs/proxy-model-card.md)."""

    ridge: float = 1.0  # penalty per feature, features standardised
    logistic: float = 1e-3  # penalty on the second stage's weights, per prompt
    smoothing: float = 0.3  # width of the soft labels, in natural-log length
    seed: int = 0  # of the folds between the stages


@dataclass(frozen=True, slots=True)
class _Ridge:
    weight: Matrix  # [D, R], on raw features
    bias: Matrix  # [R]

    def apply(self, features: Matrix) -> Matrix:
        return np.asarray(features @ self.weight + self.bias)


def fit_head(features: NDArray[np.floating[Any]], labels: FlatLabels, bins: LengthBins, settings: FitSettings) -> Head:
    """Head for pooled features [prompts, D]; several samples of a prompt are averaged into its targets."""
    inputs = features.astype(np.float64)
    views = _average(_views(labels, bins), labels.prompt, len(inputs))
    soft = soft_targets(labels, bins, settings.smoothing)
    narrow = _out_of_fold(inputs, views, settings)
    centre, spread = narrow.mean(axis=0), narrow.std(axis=0)
    # A view that says nothing here, as 'was it cut' does when no answer was, has no scale to be brought to 1.
    spread[spread < _DEAD] = 1.0
    weight, bias = _logistic((narrow - centre) / spread, soft, settings.logistic)
    first = _fit_ridge(inputs, views, settings.ridge)
    return Head(
        reduce_weight=(first.weight / spread).astype(np.float32),
        reduce_bias=((first.bias - centre) / spread).astype(np.float32),
        expand_weight=weight.astype(np.float32),
        expand_bias=bias.astype(np.float32),
    )


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


def _out_of_fold(inputs: Matrix, views: Matrix, settings: FitSettings) -> Matrix:
    """First-stage predictions for each prompt by a ridge that did not see it, [prompts, R]."""
    order = np.random.default_rng(settings.seed).permutation(len(inputs))
    predicted = np.empty_like(views)
    for part in range(_FOLDS):
        held = order[part::_FOLDS]
        rest = np.setdiff1d(order, held)
        predicted[held] = _fit_ridge(inputs[rest], views[rest], settings.ridge).apply(inputs[held])
    return predicted


def _fit_ridge(inputs: Matrix, targets: Matrix, penalty: float) -> _Ridge:
    """Ridge regression in its dual form: prompts are fewer than features."""
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0)
    # Prompts of one template leave some features all but constant: without a floor their noise would be blown up.
    spread = spread + _SPREAD_FLOOR * float(np.median(spread)) + 1e-9
    scaled = (inputs - centre) / spread
    mean = targets.mean(axis=0)
    kernel = scaled @ scaled.T
    kernel[np.diag_indices_from(kernel)] += penalty * inputs.shape[1]
    weight = (scaled.T @ np.linalg.solve(kernel, targets - mean)) / spread[:, None]
    return _Ridge(weight, mean - centre @ weight)


def _logistic(inputs: Matrix, targets: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
    """Multinomial logistic regression on soft targets by Newton's method: weight [R, K], bias [K].

    The objective is mean cross-entropy + penalty * |weight|²; a trace of penalty on the bias makes it strictly convex.
    """
    rows, bins = inputs.shape[0], targets.shape[1]
    design = np.hstack([inputs, np.ones((rows, 1))])
    width = design.shape[1]
    ridge = np.full((width, bins), 2 * penalty)
    ridge[-1] = 1e-8
    theta = np.zeros((width, bins))
    theta[-1] = np.log(targets.mean(axis=0) + 1e-6)
    value = _objective(design, theta, targets, ridge)
    for _ in range(_NEWTON_STEPS):
        shares = softmax(design @ theta)
        gradient = design.T @ (shares - targets) / rows + ridge * theta
        step = np.linalg.solve(_hessian(design, shares, ridge), gradient.ravel()).reshape(width, bins)
        # A full step can overshoot where bins are all but certain; a shorter one in its direction always descends.
        for _ in range(_HALVINGS):
            lower = _objective(design, theta - step, targets, ridge)
            if lower <= value:
                break
            step = step / 2
        else:
            break
        theta, gained, value = theta - step, value - lower, lower
        if gained < 1e-12:
            break
    return theta[:-1], theta[-1]


def _objective(design: Matrix, theta: Matrix, targets: Matrix, ridge: Matrix) -> float:
    """Mean cross-entropy plus the penalty, for parameters theta [width, K]."""
    logits = design @ theta
    top = logits.max(axis=1)
    log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
    return float(np.mean(log_sum - (targets * logits).sum(axis=1)) + 0.5 * (ridge * theta**2).sum())


def _hessian(design: Matrix, shares: Matrix, ridge: Matrix) -> Matrix:
    """Second derivative of the mean cross-entropy by [width * K] parameters, plus the penalty's."""
    rows, width = design.shape
    bins = shares.shape[1]
    blocks = -np.einsum("ni,nk,nj,nl->ikjl", design, shares, design, shares, optimize=True) / rows
    diagonal = np.einsum("ni,nk,nj->ikj", design, shares, design, optimize=True) / rows
    for index in range(bins):
        blocks[:, index, :, index] += diagonal[:, index, :]
    flat = blocks.reshape(width * bins, width * bins)
    flat[np.diag_indices_from(flat)] += ridge.ravel()
    return np.asarray(flat)
