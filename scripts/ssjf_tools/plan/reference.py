"""ONNX Runtime's answers to real prompts, as a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = "reference.npz"


@dataclass(frozen=True, slots=True)
class Reference:
    """ids, mask INT32 [n, length]; expected FP32 [n, K]: the distributions by the graph in FP32."""

    ids: NDArray[np.int32]
    mask: NDArray[np.int32]
    expected: NDArray[np.float32]

    def save(self, folder: Path) -> None:
        np.savez(folder / FILE, ids=self.ids, mask=self.mask, expected=self.expected)

    @classmethod
    def load(cls, folder: Path) -> Reference:
        """Raises ValueError when there is none, which says how to make it."""
        try:
            with np.load(folder / FILE, allow_pickle=False) as found:
                return cls(found["ids"], found["mask"], found["expected"])
        except (OSError, KeyError, ValueError) as error:
            raise ValueError(
                f"{folder / FILE}: cannot be read ({error}); scripts/build-proxy-plan --export-only"
            ) from error
