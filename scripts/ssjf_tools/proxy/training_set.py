"""What every way of training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from proxy_onnx.encode import ProxyEncoder

from .bins import LengthBins
from .crossval import select
from .data import FlatLabels, LabelledPrompt
from .encoder import EncoderSpec, Weights
from .fit import FitSettings, Inputs, fit_head
from .grams import gram_rows
from .head import Head
from .teacher import Teacher


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Labelled prompts and all that is derived from them once."""

    prompts: Sequence[LabelledPrompt]
    labels: FlatLabels
    bins: LengthBins
    inputs: Inputs  # of the frozen encoder, and n-grams
    encoder: ProxyEncoder
    spec: EncoderSpec
    weights: Weights
    threads: int
    folder: Path | None = None  # of the encoder, where it is not the packaged one
    teacher: Teacher | None = None  # `inputs` then has further prompts behind the labelled ones
    others: Sequence[LabelledPrompt] = ()  # those further prompts

    def fit(self, chosen: NDArray[np.int64], settings: FitSettings) -> Head:
        """A head from the chosen prompts on what `inputs` say, of the frozen encoder unless they were replaced."""
        labels = select(self.labels, chosen)
        lesson = self.teacher.teach(self.inputs, chosen, labels, self.bins, settings) if self.teacher else None
        return fit_head(self.inputs, chosen, labels, self.bins, settings, lesson)

    def predict(self, head: Head, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        """Distributions [chosen, K] of a head that was fitted on the same `inputs`."""
        added = self.inputs.grams.sums(head.grams)[chosen] if self.inputs.grams and head.grams.size else None
        return head.probabilities(self.inputs.features[chosen], added)

    def rows(self, chosen: NDArray[np.int64]) -> list[NDArray[np.int32]]:
        """Tokens of the chosen prompts, [CLS] to [SEP]."""
        texts = self.texts()
        return token_rows(self.encoder, [texts[index] for index in chosen])

    def texts(self) -> list[str]:
        """Of the prompts, then of the further ones."""
        return [prompt.text for prompt in [*self.prompts, *self.others]]


def token_rows(encoder: ProxyEncoder, texts: Sequence[str]) -> list[NDArray[np.int32]]:
    """Tokens of each text, [CLS] to [SEP], without padding."""
    rows = []
    for text in texts:
        ids, mask = encoder.encode([text])
        rows.append(np.asarray(ids[0, : int(mask.sum())]))
    return rows


def with_grams(features: NDArray[np.float32], rows: Sequence[NDArray[np.int32]], vocabulary: int) -> Inputs:
    """Pooled features of the frozen encoder [n, D] beside the n-grams of the same prompts."""
    grams = gram_rows(rows, vocabulary)
    return Inputs(features, grams, grams.kernel())
