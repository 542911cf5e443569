"""The proxy's head: pooled features -> a few numbers -> logits over length bins."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class HeadError(ValueError):
    """A head file is missing an array or its shapes contradict each other."""


@dataclass(frozen=True, slots=True)
class Head:
    """Weights of the two linear maps. D features, R numbers in between, K bins.

    The narrow middle is what keeps a head on thousands of features from learning its few prompts by heart.
    """

    reduce_weight: Array  # [D, R]
    reduce_bias: Array  # [R]
    expand_weight: Array  # [R, K]
    expand_bias: Array  # [K]

    def __post_init__(self) -> None:
        narrow = self.reduce_weight.shape[-1]
        bins = self.expand_weight.shape[-1]
        expected = {"reduce_bias": (narrow,), "expand_weight": (narrow, bins), "expand_bias": (bins,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise HeadError(f"{name} has shape {getattr(self, name).shape}; expected {shape}")
        if not all(np.isfinite(getattr(self, field.name)).all() for field in fields(self)):
            raise HeadError("head has a weight that is not finite")

    @property
    def features(self) -> int:
        """Number of pooled features, D."""
        return int(self.reduce_weight.shape[0])

    @property
    def bins(self) -> int:
        """Number of length bins, K."""
        return int(self.expand_weight.shape[1])

    def probabilities(self, features: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Distributions [n, K] for pooled features [n, D]."""
        narrow = features.astype(np.float64) @ self.reduce_weight + self.reduce_bias
        return softmax(narrow @ self.expand_weight + self.expand_bias)

    def save(self, file: Path) -> None:
        """Write as .npz."""
        np.savez_compressed(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, file: Path) -> Head:
        """Read from .npz. Raises HeadError, which names the file."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                return cls(**{field.name: arrays[field.name].astype(np.float32) for field in fields(cls)})
        except (OSError, KeyError, ValueError) as error:
            raise HeadError(f"{file}: {error}") from error


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row-wise softmax of [n, K]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
