"""From labelled prompts to a tuned encoder and a head that every server takes, whatever it was trained to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .adapter import Adapter
from .bins import LengthBins
from .calibrate import SMOOTHING, logistic, temperature
from .crossval import select
from .data import FlatLabels, LabelledPrompt, flatten
from .encoder import Weights
from .features import pooled_features
from .fit import FitSettings, Inputs, fit_head, fit_linear, soft_targets
from .head import Head
from .network import ProxyNetwork, Start
from .objectives import OBJECTIVES, Objective
from .progress import ProgressLine
from .scores import score
from .trainer import Lower, TuneData, TuneSettings, network_outputs, run_frozen, tune_network
from .training_set import TrainingSet

CALIBRATION = 0.1  # share of the training prompts that only the step from outputs to bins sees
# The starting head is held tighter than one that stays: one that knows its prompts by heart teaches nothing.
_START_RIDGE = 5.0
RANK = 32  # of each weight's change; docs/proxy-model-card.md has what the cut costs


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning gives: weights of the encoder, the head that is served, and how it came about.

    link: weight and bias from the network's outputs to logits over bins.
    """

    weights: Weights
    head: Head
    network: ProxyNetwork
    objective: Objective
    link: tuple[NDArray[np.float64], NDArray[np.float64]]


def tune(
    data: TrainingSet,
    chosen: NDArray[np.int64],
    settings: TuneSettings,
    smoothing: float,
    state: Path,
    lower: Sequence[Lower] | None = None,
) -> Tuned:
    """Tune on the chosen prompts, but for a tenth of them: on those, outputs are turned into shares of bins.

    lower: what the frozen layers give for every prompt of `data`, where it is known already. Raises ValueError for an
    unknown head.
    """
    objective = _objective(settings.head)
    order = np.random.default_rng(settings.seed).permutation(chosen)
    kept, rest = np.split(order, [round(CALIBRATION * len(order))])
    network = ProxyNetwork(data.spec, data.weights, settings.dropout, settings.frozen_layers)
    if settings.frozen_layers and lower is None:
        lower = run_frozen(network, data.rows(np.arange(len(data.prompts))), settings.threads)
    if settings.paper_head:
        network.with_paper_head(objective.outputs or data.bins.count)
    else:
        network.with_fitted_head(_start(data, rest, objective, smoothing))
    tune_network(network, objective, _tune_data(data, rest, smoothing, lower), settings, state)
    outputs = network_outputs(network, data.rows(kept), _of(lower, kept))
    link = _link(outputs, select(data.labels, kept), data.bins)
    head = network.head()
    served = head.with_expand(head.expand_weight @ link[0], head.expand_bias @ link[0] + link[1])
    return Tuned(network.encoder_weights(), served, network, objective, link)


def _of(lower: Sequence[Lower] | None, chosen: NDArray[np.int64]) -> list[Lower] | None:
    return None if lower is None else [lower[index] for index in chosen]


def frozen_states(data: TrainingSet, layers: int) -> list[Lower] | None:
    """What the lowest `layers` give for every prompt; none for 0 layers."""
    if not layers:
        return None
    network = ProxyNetwork(data.spec, data.weights, 0.0, layers)
    return run_frozen(network, data.rows(np.arange(len(data.prompts))), data.threads)


def outputs_of(
    data: TrainingSet, tuned: Tuned, chosen: NDArray[np.int64], lower: Sequence[Lower] | None
) -> NDArray[np.float64]:
    """What the tuned network says about the chosen prompts [chosen, outputs]."""
    return np.asarray(network_outputs(tuned.network, data.rows(chosen), _of(lower, chosen)))


def tuned_predictions(data: TrainingSet, tuned: Tuned, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
    """Distributions [chosen, K] of what would be served, the encoder's change cut to its rank."""
    adapter = adapter_of(data, tuned.weights)
    weights = adapter.apply(data.weights) if adapter else tuned.weights
    features = pooled_features(
        [data.prompts[index].text for index in chosen],
        data.encoder,
        data.spec,
        weights,
        data.threads,
        ProgressLine("encoding", "prompts"),
        first_token=bool(tuned.head.hidden),
    )
    return tuned.head.probabilities(features)


def adapter_of(data: TrainingSet, tuned: Weights) -> Adapter | None:
    """What tuning changed in the packaged encoder; none for another encoder, which is stored whole."""
    if data.folder is not None:
        return None
    return Adapter.between(data.weights, {name: tuned[name] for name in tuned if name in data.weights}, RANK)


def holdout_figures(
    data: TrainingSet, share: float, settings: TuneSettings, smoothing: float, state: Path
) -> dict[str, Any]:
    """Train on a part, score it as it would be served on the rest, beside the frozen encoder's head."""
    held, rest = holdout(len(data.prompts), share, settings.seed)
    tuned = tune(data, rest, settings, smoothing, state)
    prompts = [data.prompts[index] for index in held]
    frozen = data.fit(rest, FitSettings(smoothing=smoothing))
    return {
        "share": share,
        "seed": settings.seed,
        "tuned": score(tuned_predictions(data, tuned, held), prompts, data.bins),
        "frozen": score(data.predict(frozen, held), prompts, data.bins),
    }


def holdout(count: int, share: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices of the prompts that are held out, and of the rest."""
    order = np.random.default_rng(seed).permutation(count)
    held, rest = np.split(order, [round(share * count)])
    return held, rest


def _link(
    outputs: NDArray[np.float64], labels: FlatLabels, bins: LengthBins
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Logistic regression from held-out outputs to the bins.

    For a distribution only how sure it is: as many free numbers as it has outputs would be too many.
    """
    targets = soft_targets(labels, bins, SMOOTHING)
    if outputs.shape[1] == bins.count:
        return temperature(outputs, targets) * np.eye(bins.count), np.zeros(bins.count)
    return logistic(outputs, targets)


def _start(data: TrainingSet, chosen: NDArray[np.int64], objective: Objective, smoothing: float) -> Start:
    """A head fitted on the frozen encoder, and the scale of its features."""
    features = data.inputs.features[chosen]
    labels = select(data.labels, chosen)
    if objective.outputs == 0:
        head = fit_head(
            Inputs(features), np.arange(len(chosen)), labels, data.bins, FitSettings(_START_RIDGE, smoothing=smoothing)
        )
    else:
        weight, bias = fit_linear(features, objective.start(mean_tokens(labels)), _START_RIDGE)
        same = np.eye(objective.outputs, dtype=np.float32)
        head = Head(weight, bias, same, np.zeros(objective.outputs, np.float32))
    return Start(head, features.mean(axis=0), feature_scale(features))


def feature_scale(features: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
    """What pooled features [n, D] are divided by [D].

    They are hundreds of correlated numbers: a step on each must be small beside what they say together.
    """
    return np.asarray((features.std(axis=0) + 0.03) * np.sqrt(features.shape[1]) / 4)


def _tune_data(
    data: TrainingSet, chosen: NDArray[np.int64], smoothing: float, lower: Sequence[Lower] | None
) -> TuneData:
    labels = select(data.labels, chosen)
    shares = soft_targets(labels, data.bins, smoothing)
    return TuneData(data.rows(chosen), mean_tokens(labels), shares, _of(lower, chosen))


def mean_tokens(labels: FlatLabels) -> NDArray[np.float64]:
    """Mean length of each prompt's answers [prompts]."""
    count = np.bincount(labels.prompt)
    return np.asarray(np.bincount(labels.prompt, weights=labels.tokens) / count)


def mean_tokens_of(prompts: Sequence[LabelledPrompt]) -> NDArray[np.float64]:
    """Mean length of each prompt's answers [prompts]."""
    return mean_tokens(flatten(prompts))


def _objective(name: str) -> Objective:
    if name not in OBJECTIVES:
        raise ValueError(f"head is {name!r}; expected one of {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]
