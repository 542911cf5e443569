"""What every way of training starts from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from proxy_onnx.encode import ProxyEncoder

from .bins import LengthBins
from .data import FlatLabels, LabelledPrompt
from .encoder import EncoderSpec, Weights


@dataclass(frozen=True, slots=True)
class TrainingSet:
    """Labelled prompts and all that is derived from them once."""

    prompts: Sequence[LabelledPrompt]
    labels: FlatLabels
    bins: LengthBins
    features: NDArray[np.float32]  # of the frozen encoder [prompts, D]
    encoder: ProxyEncoder
    spec: EncoderSpec
    weights: Weights
    threads: int
