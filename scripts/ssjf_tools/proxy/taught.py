"""Tunes the encoder on a teacher's word, then fits the usual head on what it gives. Needs torch.

One noisy answer a prompt tunes an encoder into its noise. What a teacher says (teacher.py) is dense, all but free of
noise and there for prompts that nobody measured, so it is worth learning by heart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional

from .adapter import Adapter
from .baselines import ngram_ridge
from .crossval import select
from .data import flatten
from .encoder import Weights
from .features import pooled_features
from .fit import FitSettings, Inputs, average_views, fit_head, fit_linear
from .head import Head
from .metrics import kendall_tau_b
from .network import ProxyNetwork, Start
from .objectives import Objective, Targets
from .progress import ProgressLine
from .scores import score, score_groups, score_scheduling
from .trainer import TuneData, TuneSettings, tune_network
from .training_set import TrainingSet
from .tuning import adapter_of, feature_scale, holdout

# What differs from tuning on answers: the word bears more and bolder steps.
TAUGHT: Mapping[str, Any] = {"epochs": 3, "encoder_rate": 1e-4, "dropout": 0.1}
_START_RIDGE = 2.0  # a head that fits as tightly as one that is served would leave the encoder nothing to learn
_TUNED_RIDGE = 1.0  # of the head on the tuned encoder, which has seen its prompts


@dataclass(frozen=True, slots=True)
class Taught:
    """A tuned encoder as it is served, and the head on it; `inputs`: what it gives for all prompts of the data."""

    weights: Weights
    adapter: Adapter | None
    head: Head
    inputs: Inputs


def tune_taught(
    data: TrainingSet, chosen: NDArray[np.int64], settings: TuneSettings, fit: FitSettings, state: Path
) -> Taught:
    """Tune on the chosen prompts and on those that nobody measured. Raises ValueError for data without a teacher."""
    if data.teacher is None:
        raise ValueError("tuning on a teacher's word needs --states")
    labels = select(data.labels, chosen)
    lesson = data.teacher.teach(data.inputs, chosen, labels, data.bins, fit)
    places, word = lesson.targets(chosen, average_views(labels, data.bins, len(chosen)))
    spread = np.maximum(word.std(axis=0), 1e-6)
    views = (word - word.mean(axis=0)) / spread
    network = ProxyNetwork(data.spec, data.weights, settings.dropout, settings.frozen_layers)
    network.with_fitted_head(_start(data.inputs.features[places], views))
    told = TuneData(data.rows(places), np.ones(len(places)), views)
    tune_network(network, _VIEWS, told, settings, state)
    tuned = network.encoder_weights()
    adapter = adapter_of(data, tuned)
    weights = adapter.apply(data.weights) if adapter else tuned
    inputs = replace(data.inputs, features=_features(data, weights))
    head = fit_head(inputs, chosen, labels, data.bins, replace(fit, taught_ridge=_TUNED_RIDGE), lesson)
    return Taught(weights, adapter, head, inputs)


def holdout_taught(
    data: TrainingSet, share: float, settings: TuneSettings, fit: FitSettings, state: Path
) -> dict[str, Any]:
    """Train on a part, score it as it would be served on the rest; beside it the frozen encoder's head and n-grams."""
    held, rest = holdout(len(data.prompts), share, settings.seed)
    taught = tune_taught(data, rest, settings, fit, state)
    prompts = [data.prompts[index] for index in held]
    heads = {"tuned": (replace(data, inputs=taught.inputs), taught.head), "frozen": (data, data.fit(rest, fit))}
    labels, ngrams = flatten(prompts), ngram_ridge(data.prompts)(rest, held)[:, 0]
    baseline = kendall_tau_b(ngrams[labels.prompt], labels.tokens.astype(np.float64))
    figures: dict[str, Any] = {"share": share, "seed": settings.seed, "hashed_ngram_ridge": round(baseline, 4)}
    for name, (seen, head) in heads.items():
        predicted = seen.predict(head, held)
        figures[name] = {
            **score(predicted, prompts, data.bins),
            **score_groups(predicted, prompts, data.bins),
            **score_scheduling(predicted, prompts, data.bins),
        }
    return figures


def _start(features: NDArray[np.floating[Any]], views: NDArray[np.float64]) -> Start:
    weight, bias = fit_linear(features, views, _START_RIDGE)
    count = views.shape[1]
    head = Head(weight, bias, np.eye(count, dtype=np.float32), np.zeros(count, np.float32))
    return Start(head, features.mean(axis=0), feature_scale(features))


def _features(data: TrainingSet, weights: Weights) -> NDArray[np.float32]:
    progress = ProgressLine("encoding", "prompts")
    return pooled_features(data.texts(), data.encoder, data.spec, weights, data.threads, progress)


def _distance(outputs: Any, targets: Targets) -> Any:
    """Squared, of standardised views; the first, the logarithm of the length, decides the order and counts twice."""
    each = functional.mse_loss(outputs, targets.shares.to(outputs.dtype), reduction="none").mean(dim=0)
    return (each.sum() + each[0]) / len(each)


_VIEWS = Objective("views", "what a teacher says", 0, _distance, lambda tokens: tokens, lambda outputs: outputs)
