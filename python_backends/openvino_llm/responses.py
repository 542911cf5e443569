"""One answer of the engine and its tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class RowChunk:
    """New tokens of one row: what one response carries.

    `log_probs` is empty unless the request asked for it; `cum_log_prob` sums over the whole answer so far.
    `num_output_tokens` counts the generated tokens of this response, as upstream does.
    """

    batch_index: int
    output_ids: tuple[int, ...]
    num_input_tokens: int
    num_output_tokens: int
    log_probs: tuple[float, ...] | None = None
    cum_log_prob: float = 0.0

    def tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """Arrays by tensor name, with the leading batch dimension and one beam: `output_ids` is [1, 1, n]."""
        arrays = {
            "output_ids": np.array([[self.output_ids]], dtype=np.int32),
            "sequence_length": np.array([[len(self.output_ids)]], dtype=np.int32),
            "sequence_index": np.zeros((1, 1), dtype=np.int32),
            "batch_index": np.array([[self.batch_index]], dtype=np.int32),
            "num_input_tokens": np.array([[self.num_input_tokens]], dtype=np.int32),
            "num_output_tokens": np.array([[self.num_output_tokens]], dtype=np.int32),
        }
        if self.log_probs is not None:
            arrays["output_log_probs"] = np.array([[self.log_probs]], dtype=np.float32)
            arrays["cum_log_probs"] = np.array([[self.cum_log_prob]], dtype=np.float32)
        return arrays
