"""Fine-tuning around the torch part: from labelled prompts to an adapter and a head, scored on held-out prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy_onnx.encode import ProxyEncoder

from .adapter import Adapter
from .crossval import select
from .features import Progress, pooled_features
from .finetune import TuneData, TuneSettings, fine_tune
from .fit import FitSettings, fit_head, soft_targets
from .head import Head
from .scores import score
from .training_set import TrainingSet

RANK = 32  # of each weight's change; docs/proxy-model-card.md has what the cut costs
# The starting head is held tighter than one that stays: one that knows its prompts by heart teaches nothing.
_START_RIDGE = 5.0


def tune(
    data: TrainingSet, chosen: NDArray[np.int64], settings: TuneSettings, smoothing: float, checkpoint: Path
) -> tuple[Adapter, Head]:
    """Adapter and head trained on the chosen prompts. Progress goes to the standard output."""
    labels = select(data.labels, chosen)
    start = fit_head(data.features[chosen], labels, data.bins, FitSettings(ridge=_START_RIDGE, smoothing=smoothing))
    rows = [_tokens(data.encoder, data.prompts[index].text) for index in chosen]
    tuned, head = fine_tune(
        TuneData(rows, soft_targets(labels, data.bins, smoothing)),
        data.features[chosen],
        data.spec,
        data.weights,
        start,
        settings,
        checkpoint,
        lambda text: print(text, flush=True),
    )
    return Adapter.between(data.weights, {name: tuned[name] for name in tuned if name in data.weights}, RANK), head


def holdout_figures(
    data: TrainingSet, share: float, settings: TuneSettings, smoothing: float, checkpoint: Path, progress: Progress
) -> dict[str, Any]:
    """Train on a part, score adapter and head as they would ship on the rest, beside the frozen encoder's head."""
    order = np.random.default_rng(settings.seed).permutation(len(data.prompts))
    held, rest = np.split(order, [round(share * len(order))])
    adapter, head = tune(data, rest, settings, smoothing, checkpoint)
    prompts = [data.prompts[index] for index in held]
    texts = [prompt.text for prompt in prompts]
    weights = adapter.apply(data.weights)
    features = pooled_features(texts, data.encoder, data.spec, weights, data.threads, progress)
    frozen = fit_head(data.features[rest], select(data.labels, rest), data.bins, FitSettings(smoothing=smoothing))
    return {
        "share": share,
        "seed": settings.seed,
        "tuned": score(head.probabilities(features), prompts, data.bins),
        "frozen": score(frozen.probabilities(data.features[held]), prompts, data.bins),
    }


def _tokens(encoder: ProxyEncoder, text: str) -> NDArray[np.int32]:
    ids, mask = encoder.encode([text])
    return np.asarray(ids[0, : int(mask.sum())])
