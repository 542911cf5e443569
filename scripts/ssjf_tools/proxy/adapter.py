"""What fine-tuning changed in an encoder, small enough for git: low-rank factors of each weight's change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .encoder import Weights

_LEFT, _RIGHT, _WHOLE = ":left", ":right", ":whole"

Halves = dict[str, NDArray[np.float16]]


class AdapterError(ValueError):
    """An adapter does not fit the encoder, or its file is broken."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """Changes by weight name, FP16: `name:left` [out, r] and `name:right` [r, in], or `name:whole` for vectors."""

    arrays: Mapping[str, NDArray[np.float16]]

    @classmethod
    def between(cls, base: Weights, tuned: Weights, rank: int) -> Adapter:
        """The change from `base` to `tuned`, matrices cut to their `rank` largest singular values."""
        arrays: Halves = {}
        for name, weight in tuned.items():
            change = weight - base[name]
            if not change.any():
                continue
            if change.ndim == 2 and min(change.shape) > rank:
                left, sizes, right = np.linalg.svd(change, full_matrices=False)
                # Both factors get the root of each singular value, so that neither runs out of FP16's range.
                roots = np.sqrt(sizes[:rank])
                arrays[name + _LEFT] = (left[:, :rank] * roots).astype(np.float16)
                arrays[name + _RIGHT] = (roots[:, None] * right[:rank]).astype(np.float16)
            else:
                arrays[name + _WHOLE] = change.astype(np.float16)
        return cls(arrays)

    def apply(self, base: Weights) -> Weights:
        """`base` with the changes added; weights without a change are shared. Raises AdapterError."""
        tuned = dict(base)
        for key in self.arrays:
            name, _, part = key.rpartition(":")
            if part == "right":
                continue
            change = self._change(name, key)
            if name not in base or base[name].shape != change.shape:
                raise AdapterError(
                    f"adapter changes {name} of shape {list(change.shape)}; the encoder has no such weight"
                )
            tuned[name] = base[name] + change
        return tuned

    def _change(self, name: str, key: str) -> NDArray[np.float32]:
        if key.endswith(_WHOLE):
            return self.arrays[key].astype(np.float32)
        if name + _RIGHT not in self.arrays:
            raise AdapterError(f"adapter has {key} without {name}{_RIGHT}")
        product = self.arrays[key].astype(np.float32) @ self.arrays[name + _RIGHT].astype(np.float32)
        return np.asarray(product)

    def save(self, file: Path) -> None:
        """Write as .npz."""
        np.savez_compressed(file, **dict(self.arrays))

    @classmethod
    def load(cls, file: Path) -> Adapter:
        """Read from .npz. Raises AdapterError, which names the file."""
        try:
            with np.load(file, allow_pickle=False) as stored:
                return cls({name: stored[name] for name in stored.files})
        except (OSError, ValueError) as error:
            raise AdapterError(f"{file}: {error}") from error
