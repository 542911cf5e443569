"""Adapter for `inflight_batcher_llm`: the token tensors of TensorRT-LLM's Triton backend (and of our CPU engine)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssjf.service.engine.base import EngineAdapter
from ssjf.service.engine.wire import build_engine_request, read_outputs
from ssjf.service.messages import EngineChunk, EngineRequest

_LOG_PROBS = ("cum_log_probs", "output_log_probs")
_OWN = frozenset({"output_ids", "sequence_length", "sequence_index", "batch_index", *_LOG_PROBS})


class InflightAdapter(EngineAdapter):
    """Asks only for the outputs that someone will read: each one costs a copy in every response."""

    def request_message(self, request: EngineRequest) -> Any:
        """See EngineAdapter. The prompt is never echoed by the engine: the scheduler has the text itself."""
        length = request.prompt_ids.shape[0]
        tensors: dict[str, NDArray[Any]] = {
            "input_ids": request.prompt_ids.reshape(1, length),
            "input_lengths": np.array([[length]], dtype=np.int32),
            "request_output_len": np.array([[request.max_tokens]], dtype=np.int32),
            "streaming": np.array([[request.streaming]]),
            "exclude_input_in_output": np.array([[True]]),
            **request.inputs,
        }
        outputs = ("output_ids", "sequence_length", *request.flagged_outputs)
        outputs += ("sequence_index",) if request.sequences > 1 else ()
        return build_engine_request(self.model, request, tensors, outputs)

    def read_chunk(self, response: Any) -> EngineChunk | None:
        if not response.outputs:
            return None
        if len(response.outputs) == 2 and response.outputs[0].name == "output_ids":
            return _plain_chunk(response)
        arrays = read_outputs(response)
        if "output_ids" not in arrays:
            return None
        beams = arrays["output_ids"]
        beams = beams.reshape(beams.shape[-2:])  # [1, beams, tokens]; a last response may hold no token
        lengths = (
            arrays["sequence_length"].reshape(-1) if "sequence_length" in arrays else [beams.shape[1]] * len(beams)
        )
        ids = tuple(beam[: int(length)].tolist() for beam, length in zip(beams, lengths, strict=True))
        return EngineChunk(
            sequence_index=int(arrays["sequence_index"].reshape(-1)[0]) if "sequence_index" in arrays else 0,
            token_ids=ids,
            cum_log_probs=_floats(arrays, "cum_log_probs"),
            log_probs=_rows(arrays, "output_log_probs", ids),
            extras={name: value for name, value in arrays.items() if name not in _OWN},
        )


def _plain_chunk(response: Any) -> EngineChunk:
    """`output_ids` and `sequence_length` alone: nearly every response of nearly every request, so without numpy."""
    raw_ids, raw_lengths = response.raw_output_contents
    ids = memoryview(raw_ids).cast("i").tolist()
    if len(raw_lengths) == 4:  # one beam
        return EngineChunk(0, (ids[: int.from_bytes(raw_lengths, "little")],))
    lengths = memoryview(raw_lengths).cast("i").tolist()
    width = len(ids) // len(lengths)
    return EngineChunk(0, tuple(ids[at * width : at * width + length] for at, length in enumerate(lengths)))


def _floats(arrays: Mapping[str, NDArray[Any]], name: str) -> tuple[float, ...]:
    return tuple(arrays[name].reshape(-1).tolist()) if name in arrays else ()


def _rows(arrays: Mapping[str, NDArray[Any]], name: str, ids: tuple[list[int], ...]) -> tuple[tuple[float, ...], ...]:
    if name not in arrays:
        return ()
    rows = arrays[name].reshape(arrays[name].shape[-2:])
    return tuple(tuple(row[: len(own)].tolist()) for row, own in zip(rows, ids, strict=True))
