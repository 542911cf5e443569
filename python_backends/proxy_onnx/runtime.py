"""The model in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .errors import MetadataError
from .tensors import INPUTS, OUTPUT

MODEL_FILE = "model.onnx"

# The fused op took 0.29 ms a layer where Add and LayerNormalization took 0.06 (ONNX Runtime 1.31, 128 tokens).
_SLOWER_ON_CPU = ["SkipLayerNormFusion"]


class OnnxRuntime:
    """One session on the CPU. Calls block; one at a time."""

    def __init__(self, folder: Path, threads: int) -> None:
        """Load `folder`/model.onnx. Raises MetadataError when it is missing, broken or another kind of model."""
        file = folder / MODEL_FILE
        if not file.is_file():
            raise MetadataError(
                f"{file} is missing; scripts/serve builds it, or: python -m ssjf_tools.assets --only proxy"
            )
        try:
            self._session = onnxruntime.InferenceSession(
                str(file), _options(threads), providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER_ON_CPU
            )
        except Exception as error:  # ONNX Runtime raises a dozen types, none public
            raise MetadataError(f"{file}: ONNX Runtime cannot load it: {error}") from error
        names = tuple(sorted(item.name for item in self._session.get_inputs()))
        if names != tuple(sorted(INPUTS)) or OUTPUT not in [item.name for item in self._session.get_outputs()]:
            raise MetadataError(f"{file}: inputs {list(names)}; expected {list(INPUTS)} and output {OUTPUT}")

    def run(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        """Distributions FP32 [rows, K] for ids and mask INT32 [rows, length]."""
        (output,) = self._session.run([OUTPUT], {"input_ids": ids, "attention_mask": mask})
        return np.asarray(output, dtype=np.float32)


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Spinning threads would take the LLM's cores; arenas would keep the memory of the largest batch ever seen.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 3
    return options
