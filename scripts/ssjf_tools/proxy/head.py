"""The proxy's head: pooled features -> a few numbers -> logits over length bins."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Matrix = NDArray[np.float64]
_MAPS = ("reduce_weight", "reduce_bias", "expand_weight", "expand_bias")


class HeadError(ValueError):
    """A head file is missing an array or its shapes contradict each other."""


@dataclass(frozen=True, slots=True)
class Head:
    """Weights of the two linear maps. D features, R numbers in between, K bins.

    The narrow middle is what keeps a head on thousands of features from learning its few prompts by heart.
    hidden: maps with ReLU before the first one, as in the paper's heads; none in ours.
    grams: what each hashed n-gram of tokens adds to the R numbers (grams.py) [G, R]; none where G is 0.
    """

    reduce_weight: Array  # [D, R]
    reduce_bias: Array  # [R]
    expand_weight: Array  # [R, K]
    expand_bias: Array  # [K]
    hidden: tuple[tuple[Array, Array], ...] = ()
    grams: Array = field(default_factory=lambda: np.zeros((0, 0), np.float32))

    def __post_init__(self) -> None:
        narrow = self.reduce_weight.shape[-1]
        bins = self.expand_weight.shape[-1]
        expected = {"reduce_bias": (narrow,), "expand_weight": (narrow, bins), "expand_bias": (bins,)}
        for name, shape in expected.items():
            if getattr(self, name).shape != shape:
                raise HeadError(f"{name} has shape {getattr(self, name).shape}; expected {shape}")
        width = self.reduce_weight.shape[0]
        for weight, bias in reversed(self.hidden):
            if weight.ndim != 2 or weight.shape[1] != width or bias.shape != (width,):
                raise HeadError(f"a hidden map has shape {weight.shape} with {bias.shape}; expected {width} outputs")
            width = weight.shape[0]
        if self.grams.size and self.grams.shape[1] != narrow:
            raise HeadError(f"grams has shape {self.grams.shape}; expected {narrow} columns")
        if not all(np.isfinite(array).all() for array in self._arrays().values()):
            raise HeadError("head has a weight that is not finite")

    @property
    def features(self) -> int:
        """Number of pooled features, D."""
        first = self.hidden[0][0] if self.hidden else self.reduce_weight
        return int(first.shape[0])

    @property
    def bins(self) -> int:
        """Number of length bins, K."""
        return int(self.expand_weight.shape[1])

    def views(self, features: NDArray[np.floating[Any]], grams: NDArray[np.float64] | None = None) -> Matrix:
        """The R numbers [n, R] for pooled features [n, D], plus what the n-grams add [n, R]."""
        inner = features.astype(np.float64)
        for weight, bias in self.hidden:
            inner = np.maximum(inner @ weight + bias, 0.0)
        narrow = inner @ self.reduce_weight + self.reduce_bias
        return np.asarray(narrow if grams is None else narrow + grams)

    def probabilities(self, features: NDArray[np.floating[Any]], grams: NDArray[np.float64] | None = None) -> Matrix:
        """Distributions [n, K] for pooled features [n, D], plus what the n-grams add to the R numbers [n, R]."""
        return softmax(self.views(features, grams) @ self.expand_weight + self.expand_bias)

    def with_expand(self, weight: NDArray[np.floating[Any]], bias: NDArray[np.floating[Any]]) -> Head:
        """The same with another last map."""
        return replace(self, expand_weight=weight.astype(np.float32), expand_bias=bias.astype(np.float32))

    def save(self, file: Path) -> None:
        """Write as .npz; n-grams in FP16."""
        arrays = self._arrays()
        if self.grams.size:
            arrays["grams"] = self.grams.astype(np.float16)
        np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, file: Path) -> Head:
        """Read from .npz. Raises HeadError, which names the file."""
        try:
            with np.load(file, allow_pickle=False) as arrays:
                stored = {name: arrays[name].astype(np.float32) for name in arrays.files}
            hidden = tuple(
                (stored[f"hidden{n}_weight"], stored[f"hidden{n}_bias"])
                for n in range(len(stored))
                if f"hidden{n}_weight" in stored
            )
            return cls(
                **{name: stored[name] for name in _MAPS},
                hidden=hidden,
                grams=stored.get("grams", np.zeros((0, 0), np.float32)),
            )
        except (OSError, KeyError, ValueError) as error:
            raise HeadError(f"{file}: {error}") from error

    def _arrays(self) -> dict[str, Array]:
        arrays = {name: getattr(self, name) for name in _MAPS}
        for number, (weight, bias) in enumerate(self.hidden):
            arrays |= {f"hidden{number}_weight": weight, f"hidden{number}_bias": bias}
        return arrays | ({"grams": self.grams} if self.grams.size else {})


def softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row-wise softmax of [n, K]."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))
