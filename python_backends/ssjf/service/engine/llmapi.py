"""Adapter for `llmapi`: TensorRT-LLM's text-in, text-out model (triton_backend/all_models/llmapi/tensorrt_llm).

Its model has no batch dimension (`max_batch_size: 0`) and serves streams only with `decoupled: true` in its
model.yaml, which streaming clients and early stops at stop words need. It tokenizes by itself and adds the special
tokens of its tokenizer; a chat template that writes them too would double them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from ssjf.core.errors import InvalidRequest
from ssjf.service.engine.base import EngineAdapter
from ssjf.service.engine.wire import build_engine_request, read_outputs
from ssjf.service.messages import EngineChunk, EngineRequest, Generation
from ssjf.tensors import NUMPY_TYPES, PRODUCTION_OUTPUTS

# Engine input as the scheduler names it → tensor of this flavour.
_SAMPLING: Final[Mapping[str, str]] = {
    "runtime_top_k": "sampling_param_top_k",
    "runtime_top_p": "sampling_param_top_p",
    "temperature": "sampling_param_temperature",
    "presence_penalty": "sampling_param_presence_penalty",
    "frequency_penalty": "sampling_param_frequency_penalty",
    "seed": "sampling_param_seed",
    "return_perf_metrics": "sampling_param_return_perf_metrics",
}
# What has no tensor here, by the engine name, and the values that change nothing: they are accepted and left out.
_NEUTRAL: Final[Mapping[str, tuple[float, ...]]] = {
    "beam_width": (1,),
    "num_return_sequences": (1,),
    "repetition_penalty": (1,),
    "len_penalty": (0, 1),
    "min_tokens": (0, 1),
    "end_id": (-1,),
    "return_log_probs": (0,),
    "return_context_logits": (0,),
    "return_generation_logits": (0,),
}
_WITHOUT_EFFECT: Final = "pad_id"  # fills up token tensors, and there are none
# The client's name of an engine input, where it is another one.
_CLIENT_NAMES: Final[Mapping[str, str]] = {"len_penalty": "length_penalty"}
# Some counters are named differently here; text numbers, too: the model sends every metric as STRING.
_METRIC_NAMES: Final[Mapping[str, str]] = {"kv_cache_reused_block": "kv_cache_reused_blocks"}
_METRIC_TYPES: Final = {spec.name: NUMPY_TYPES[spec.dtype] for spec in PRODUCTION_OUTPUTS if spec.dims == (1,)}
_NO_REASON: Final = "None"


class LlmapiAdapter(EngineAdapter):
    """Sends the rendered prompt; stop words stay with the scheduler, which cuts the text by itself."""

    takes_text: ClassVar[bool] = True

    def check(self, generation: Generation) -> None:
        """See EngineAdapter."""
        if not generation.text:
            raise InvalidRequest("text_input", "nothing", "the prompt's text (the llmapi engine takes no token ids)")
        for field, words in (("bad_words", generation.bad_words), ("embedding_bias_words", generation.biased_words)):
            if words:
                raise InvalidRequest(field, f"{len(words)} words", "none (the llmapi engine cannot honour them)")
        for name, value in generation.engine_inputs.items():
            if name not in _SAMPLING and not _is_neutral(name, value):
                field = _CLIENT_NAMES.get(name, name)
                shown = value.reshape(-1)[0].item() if value.size == 1 and value.dtype != np.object_ else "set"
                raise InvalidRequest(field, shown, "its neutral value, or none (the llmapi engine cannot honour it)")

    def request_message(self, request: EngineRequest) -> Any:
        """See EngineAdapter; without a batch dimension, and without named outputs: the flags choose them."""
        tensors: dict[str, NDArray[Any]] = {
            "text_input": np.array([request.text.encode()], dtype=np.object_),
            "streaming": np.array([request.streaming]),
            "sampling_param_max_tokens": np.array([request.max_tokens], dtype=np.int32),
            "sampling_param_exclude_input_from_output": np.array([True]),
            "return_finish_reason": np.array([True]),
        }
        for name, value in request.inputs.items():
            if name in _SAMPLING:
                tensors[_SAMPLING[name]] = value.reshape(1)
        return build_engine_request(self.model, request, tensors)

    def read_chunk(self, response: Any) -> EngineChunk | None:
        """See EngineAdapter. `text_output` is the whole answer so far, not what is new."""
        if not response.outputs:
            return None
        arrays = read_outputs(response)
        if "text_output" not in arrays or not arrays["text_output"].size:
            return None
        reason = _first(arrays, "finish_reason", _NO_REASON)
        count = _first(arrays, "num_output_tokens", "")
        return EngineChunk(
            sequence_index=0,
            text=_first(arrays, "text_output", ""),
            output_tokens=int(count) if count else None,
            finish=None if reason == _NO_REASON else reason,
            extras=_metrics(arrays),
        )


def _is_neutral(name: str, value: NDArray[Any]) -> bool:
    return name == _WITHOUT_EFFECT or (value.size == 1 and value.reshape(-1)[0] in _NEUTRAL.get(name, ()))


def _first(arrays: Mapping[str, NDArray[Any]], name: str, default: str) -> str:
    """The first element of an output as text, whatever type it came in."""
    if name not in arrays or not arrays[name].size:
        return default
    value = arrays[name].reshape(-1)[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _metrics(arrays: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Performance metrics under the clients' names and types, [1, 1] each; what is not a number is left out."""
    metrics = {}
    for name in arrays:
        wanted = _METRIC_NAMES.get(name, name)
        if wanted in _METRIC_TYPES:
            dtype = np.dtype(_METRIC_TYPES[wanted])
            number = float if dtype.kind == "f" else int
            try:
                metrics[wanted] = np.array([[number(_first(arrays, name, ""))]], dtype=dtype)
            except ValueError:
                continue
    return metrics
