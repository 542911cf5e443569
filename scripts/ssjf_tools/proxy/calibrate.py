"""From a few numbers about a prompt to calibrated shares of the length bins: logistic regression, and temperature."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .head import softmax

Matrix = NDArray[np.float64]
SMOOTHING = 0.3  # width of soft labels in natural-log length, where one number has to be spread over all bins
_PENALTY = 1e-3
_NEWTON_STEPS = 30
_HALVINGS = 20
_DEAD = 1e-6  # spread of a number that says nothing


def logistic(inputs: Matrix, targets: Matrix, penalty: float = _PENALTY) -> tuple[Matrix, Matrix]:
    """Weight [R, K] and bias [K] whose softmax gives the soft targets [n, K] from inputs [n, R] of any scale."""
    centre, spread = inputs.mean(axis=0), inputs.std(axis=0)
    # An input that says nothing here, as 'was it cut' does when no answer was, has no scale to be brought to 1.
    spread = np.where(spread < _DEAD, 1.0, spread)
    weight, bias = _fit((inputs - centre) / spread, targets, penalty)
    weight = weight / spread[:, None]
    return weight, bias - centre @ weight


def temperature(logits: Matrix, targets: Matrix) -> float:
    """The factor by which logits [n, K] give soft targets [n, K] their highest likelihood, from 0.3 to 1.5."""
    factors = np.linspace(0.3, 1.5, 49)
    losses = [
        -np.mean((targets * np.log(np.maximum(softmax(logits * factor), 1e-12))).sum(axis=1)) for factor in factors
    ]
    return float(factors[int(np.argmin(losses))])


def _fit(inputs: Matrix, targets: Matrix, penalty: float) -> tuple[Matrix, Matrix]:
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
