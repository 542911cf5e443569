"""What a tuned proxy is trained to say: the paper's heads, ranking heads and ours. Needs torch.

Every objective turns the network's outputs [rows, n] into a loss. Targets of a row are the mean length of its prompt's
answers in tokens (cut ones count with the length they reached) and, for ours, its soft distribution over bins.
The paper's six follow what its published code does (James-QiuHaoran/LLM-serving-with-proxy-models): lengths in raw
tokens; "binary" is a split at 141 and 503 tokens, so it has three classes; classes are weighted by one over their
frequency; an ordinal head is a regression on the number of the class.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from .scores import CLASS_EDGES

_MARGIN = 1.0  # of the pairwise head, in the unit of its scores


@dataclass(frozen=True, slots=True)
class Targets:
    """What is known about each row: mean length in tokens [rows], soft labels [rows, K], weight of each class [C]."""

    tokens: Any
    shares: Any
    class_weights: Any


Loss = Callable[[Any, Targets], Any]
Views = Callable[[NDArray[np.float64]], NDArray[np.float64]]  # tokens [n] -> what the outputs should be [n, outputs]


@dataclass(frozen=True, slots=True)
class Objective:
    """One kind of head.

    outputs: how many numbers the network gives (0: a distribution, as many as there are bins).
    classes: name of the class edges, '' without. start: what the outputs would be if they were right; a ridge
    regression to it is where training starts. order: outputs [rows, n] -> the number to sort by [rows].
    """

    name: str
    about: str
    outputs: int
    loss: Loss
    start: Views
    order: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    classes: str = ""

    def class_weights(self, tokens: NDArray[np.float64]) -> NDArray[np.float64]:
        """One over the number of training prompts in each class; 0 for a class without any. Empty without classes."""
        if not self.classes:
            return np.zeros(0)
        counts = np.bincount(class_of(tokens, self.classes), minlength=len(CLASS_EDGES[self.classes]) + 1)
        return np.asarray(np.divide(1.0, counts, out=np.zeros(len(counts)), where=counts > 0))


def class_of(tokens: NDArray[np.floating[Any]], edges: str) -> NDArray[np.int64]:
    """Class of each length [n]."""
    return np.asarray(np.searchsorted(CLASS_EDGES[edges], tokens, side="right"))


def _class_tensor(tokens: Any, edges: str) -> Any:
    return torch.bucketize(tokens, torch.tensor(CLASS_EDGES[edges], device=tokens.device).to(tokens.dtype), right=True)


def _regression(distance: Callable[..., Any]) -> Loss:
    return lambda outputs, targets: distance(outputs[:, 0], targets.tokens)


def _ordinal(distance: Callable[..., Any]) -> Loss:
    return lambda outputs, targets: distance(outputs[:, 0], _class_tensor(targets.tokens, "class5").to(outputs.dtype))


def _classes(edges: str) -> Loss:
    def loss(outputs: Any, targets: Targets) -> Any:
        chosen = _class_tensor(targets.tokens, edges)
        return functional.cross_entropy(outputs, chosen, weight=targets.class_weights.to(outputs.dtype))

    return loss


def _distribution(outputs: Any, targets: Targets) -> Any:
    return -(targets.shares * torch.log_softmax(outputs, dim=1)).sum(dim=1).mean()


def _list_mle(outputs: Any, targets: Targets) -> Any:
    """Likelihood of the true order of the batch, longest first (Xia et al. 2008)."""
    scores = outputs[torch.argsort(targets.tokens, descending=True, stable=True), 0]
    remaining = torch.logcumsumexp(scores.flip(0), dim=0).flip(0)
    return (remaining - scores).mean()


def _pairwise(outputs: Any, targets: Targets) -> Any:
    """Hinge on every pair of the batch whose lengths differ."""
    longer = targets.tokens[:, None] > targets.tokens[None, :]
    gaps = outputs[:, 0][:, None] - outputs[:, 0][None, :]
    return (functional.relu(_MARGIN - gaps) * longer).sum() / longer.sum().clamp(min=1)


def _one(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(outputs[:, 0])


def _expected_class(outputs: NDArray[np.float64]) -> NDArray[np.float64]:
    shares = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    return np.asarray((shares / shares.sum(axis=1, keepdims=True)) @ np.arange(outputs.shape[1]))


def _in_tokens(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    return tokens[:, None]


def _log_scale(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    logs = np.log(tokens)
    return np.asarray(((logs - logs.mean()) / max(float(logs.std()), 1e-6))[:, None])


def _number(tokens: NDArray[np.float64]) -> NDArray[np.float64]:
    return class_of(tokens, "class5")[:, None].astype(np.float64)


def _one_hot(edges: str) -> Views:
    # Three nats between right and wrong: a class that the ridge is sure of gets about nine tenths.
    return lambda tokens: 3.0 * np.eye(len(CLASS_EDGES[edges]) + 1)[class_of(tokens, edges)]


OBJECTIVES: Mapping[str, Objective] = {
    objective.name: objective
    for objective in (
        Objective("distribution", "calibrated shares of log-spaced bins", 0, _distribution, _in_tokens, _one),
        Objective("regression-l1", "tokens, absolute error", 1, _regression(functional.l1_loss), _in_tokens, _one),
        Objective("regression-mse", "tokens, squared error", 1, _regression(functional.mse_loss), _in_tokens, _one),
        Objective("binary", "split at 141, 503", 3, _classes("class3"), _one_hot("class3"), _expected_class, "class3"),
        Objective(
            "multi-class", "split at 42 … 503", 5, _classes("class5"), _one_hot("class5"), _expected_class, "class5"
        ),
        Objective("ordinal-l1", "number of the class, absolute", 1, _ordinal(functional.l1_loss), _number, _one),
        Objective("ordinal-mse", "number of the class, squared", 1, _ordinal(functional.mse_loss), _number, _one),
        Objective("listmle", "likelihood of the true order", 1, _list_mle, _log_scale, _one),
        Objective("pairwise", "margin between each two", 1, _pairwise, _log_scale, _one),
    )
}
