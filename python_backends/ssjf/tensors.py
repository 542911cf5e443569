"""The one table of tensors: names, types and dims of every model in the repository.

Dims leave the leading batch dimension out, as ``config.pbtxt`` does. The client-facing tensors are those of the
TensorRT-LLM ensemble (``inflight_batcher_llm/ensemble``), the engine tensors those of its ``tensorrt_llm`` model;
``predicted_tokens`` and ``queue_time_us`` are ours. Every ``config.pbtxt`` is tested against this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import DTypeLike

NUMPY_TYPES: Final[dict[str, DTypeLike]] = {
    "STRING": np.object_,
    "BOOL": np.bool_,
    "UINT8": np.uint8,
    "INT32": np.int32,
    "INT64": np.int64,
    "UINT64": np.uint64,
    "FP16": np.float16,
    "FP32": np.float32,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor of a model: Triton type without its ``TYPE_`` prefix, dims without the batch dimension."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False


def _required(name: str, dtype: str, *dims: int) -> TensorSpec:
    return TensorSpec(name, dtype, dims or (1,))


def _optional(name: str, dtype: str, *dims: int) -> TensorSpec:
    return TensorSpec(name, dtype, dims or (1,), optional=True)


# -- what clients send -------------------------------------------------------------------------------------------
TEXT_INPUT: Final = _required("text_input", "STRING")
MAX_TOKENS: Final = _required("max_tokens", "INT32")

CLIENT_OPTIONAL_INPUTS: Final[tuple[TensorSpec, ...]] = (
    _optional("bad_words", "STRING", -1),
    _optional("stop_words", "STRING", -1),
    _optional("end_id", "INT32"),
    _optional("pad_id", "INT32"),
    _optional("top_k", "INT32"),
    _optional("top_p", "FP32"),
    _optional("temperature", "FP32"),
    _optional("length_penalty", "FP32"),
    _optional("repetition_penalty", "FP32"),
    _optional("presence_penalty", "FP32"),
    _optional("frequency_penalty", "FP32"),
    _optional("min_tokens", "INT32"),
    _optional("min_length", "INT32"),  # TensorRT-LLM 0.18 and before
    _optional("seed", "UINT64"),
    _optional("random_seed", "UINT64"),  # TensorRT-LLM 0.18 and before
    _optional("beam_width", "INT32"),
    _optional("num_return_sequences", "INT32"),
    _optional("stream", "BOOL"),
    _optional("stop", "BOOL"),
    _optional("exclude_input_in_output", "BOOL"),
    _optional("return_log_probs", "BOOL"),
    _optional("return_num_input_tokens", "BOOL"),
    _optional("return_num_output_tokens", "BOOL"),
)

# Inputs of upstream's text models that only a TensorRT-LLM engine can honour: declared in production, passed through.
PRODUCTION_OPTIONAL_INPUTS: Final[tuple[TensorSpec, ...]] = (
    _optional("embedding_bias_words", "STRING", -1),
    _optional("embedding_bias_weights", "FP32", -1),
    _optional("lora_task_id", "UINT64"),
    _optional("lora_weights", "FP16", -1, -1),
    _optional("lora_config", "INT32", -1, 3),
    _optional("guided_decoding_guide_type", "STRING"),
    _optional("guided_decoding_guide", "STRING"),
    _optional("prompt_embedding_table", "FP16", -1, -1),
    _optional("prompt_vocab_size", "INT32"),
    _optional("prompt_table_extra_id", "UINT64"),
    _optional("return_context_logits", "BOOL"),
    _optional("return_generation_logits", "BOOL"),
    _optional("return_perf_metrics", "BOOL"),
)

# -- what clients get ----------------------------------------------------------------------------------------------
CLIENT_OUTPUTS: Final[tuple[TensorSpec, ...]] = (
    _required("text_output", "STRING", -1),
    _required("cum_log_probs", "FP32", -1),
    _required("output_log_probs", "FP32", -1, -1),
    _required("sequence_index", "INT32"),
    _required("batch_index", "INT32"),
    _required("num_input_tokens", "INT32"),
    _required("num_output_tokens", "INT32"),
    _required("predicted_tokens", "INT32"),
    _required("queue_time_us", "INT64"),
)

PRODUCTION_OUTPUTS: Final[tuple[TensorSpec, ...]] = (
    _required("context_logits", "FP32", -1, -1),
    _required("generation_logits", "FP32", -1, -1, -1),
    _required("kv_cache_alloc_new_blocks", "INT32"),
    _required("kv_cache_reused_blocks", "INT32"),
    _required("kv_cache_alloc_total_blocks", "INT32"),
    _required("arrival_time_ns", "INT64"),
    _required("first_scheduled_time_ns", "INT64"),
    _required("first_token_time_ns", "INT64"),
    _required("last_token_time_ns", "INT64"),
    _required("acceptance_rate", "FP32"),
    _required("total_accepted_draft_tokens", "INT32"),
    _required("total_draft_tokens", "INT32"),
)

# Client flag → the engine outputs that it switches on; asked for only then.
FLAGGED_OUTPUTS: Final[dict[str, tuple[str, ...]]] = {
    "return_log_probs": ("cum_log_probs", "output_log_probs"),
    "return_context_logits": ("context_logits",),
    "return_generation_logits": ("generation_logits",),
    "return_perf_metrics": tuple(spec.name for spec in PRODUCTION_OUTPUTS if not spec.name.endswith("logits")),
}

# -- between the steps of the ensemble -----------------------------------------------------------------------------
PREPROCESSING_OUTPUTS: Final[tuple[TensorSpec, ...]] = (
    _required("input_ids", "INT32", -1),
    _required("input_lengths", "INT32"),
    _required("proxy_input_ids", "INT32", -1),
    _required("proxy_attention_mask", "INT32", -1),
)
PROXY_INPUTS: Final[tuple[TensorSpec, ...]] = (
    _required("input_ids", "INT32", -1),
    _required("attention_mask", "INT32", -1),
)
PROXY_OUTPUT: Final = _required("length_distribution", "FP32", -1)

# The ensemble fills these; a client of `scheduler` that sends text leaves them out.
SCHEDULER_STEP_INPUTS: Final[tuple[TensorSpec, ...]] = (
    _optional("input_ids", "INT32", -1),
    _optional("input_lengths", "INT32"),
    _optional("length_distribution", "FP32", -1),
)

# -- the engine (`tensorrt_llm`, flavour inflight_batcher_llm) -------------------------------------------------------
ENGINE_REQUIRED_INPUTS: Final[tuple[TensorSpec, ...]] = (
    _required("input_ids", "INT32", -1),
    _required("input_lengths", "INT32"),
    _required("request_output_len", "INT32"),
)
ENGINE_OPTIONAL_INPUTS: Final[tuple[TensorSpec, ...]] = (
    _optional("end_id", "INT32"),
    _optional("pad_id", "INT32"),
    _optional("beam_width", "INT32"),
    _optional("num_return_sequences", "INT32"),
    _optional("runtime_top_k", "INT32"),
    _optional("runtime_top_p", "FP32"),
    _optional("temperature", "FP32"),
    _optional("len_penalty", "FP32"),
    _optional("repetition_penalty", "FP32"),
    _optional("presence_penalty", "FP32"),
    _optional("frequency_penalty", "FP32"),
    _optional("min_tokens", "INT32"),
    _optional("seed", "UINT64"),
    _optional("stop_words_list", "INT32", 2, -1),
    _optional("bad_words_list", "INT32", 2, -1),
    _optional("return_log_probs", "BOOL"),
    _optional("return_num_input_tokens", "BOOL"),
    _optional("return_num_output_tokens", "BOOL"),
    _optional("exclude_input_in_output", "BOOL"),
    _optional("streaming", "BOOL"),
    _optional("stop", "BOOL"),
)
ENGINE_OUTPUTS: Final[tuple[TensorSpec, ...]] = (
    _required("output_ids", "INT32", -1, -1),
    _required("sequence_length", "INT32", -1),
    _required("cum_log_probs", "FP32", -1),
    _required("output_log_probs", "FP32", -1, -1),
    _required("sequence_index", "INT32"),
    _required("batch_index", "INT32"),
    _required("num_input_tokens", "INT32"),
    _required("num_output_tokens", "INT32"),
)

# -- the engine (`tensorrt_llm`, flavour llmapi; no batch dimension) --------------------------------------------------
LLMAPI_INPUTS: Final[tuple[TensorSpec, ...]] = (
    _required("text_input", "STRING", -1),
    _optional("streaming", "BOOL"),
    _optional("sampling_param_best_of", "INT32"),
    _optional("sampling_param_temperature", "FP32"),
    _optional("sampling_param_top_k", "INT32"),
    _optional("sampling_param_top_p", "FP32"),
    _optional("sampling_param_frequency_penalty", "FP32"),
    _optional("sampling_param_presence_penalty", "FP32"),
    _optional("sampling_param_max_tokens", "INT32"),
    _optional("sampling_param_stop", "STRING", -1),
    _optional("sampling_param_seed", "UINT64"),
    _optional("sampling_param_exclude_input_from_output", "BOOL"),
    _optional("sampling_param_return_perf_metrics", "BOOL"),
    _optional("return_finish_reason", "BOOL"),
    _optional("return_stop_reason", "BOOL"),
    _optional("return_cumulative_logprob", "BOOL"),
    _optional("stop", "BOOL"),
)
# Upstream declares the metrics as numbers and sends them as text; the adapter reads both.
LLMAPI_OUTPUTS: Final[tuple[TensorSpec, ...]] = (
    _required("text_output", "STRING", -1),
    _required("finish_reason", "STRING", -1),
    _required("stop_reason", "STRING", -1),
    _required("cumulative_logprob", "FP32", -1),
    _required("kv_cache_reused_block", "INT32", -1),
    _required("kv_cache_missed_block", "INT32", -1),
    _required("kv_cache_alloc_new_blocks", "INT32", -1),
    _required("kv_cache_alloc_total_blocks", "INT32", -1),
    _required("kv_cache_hit_rate", "FP32", -1),
    _required("arrival_time_ns", "INT64"),
    _required("first_scheduled_time_ns", "INT64"),
    _required("first_token_time_ns", "INT64"),
    _required("last_token_time_ns", "INT64"),
    _required("acceptance_rate", "FP32"),
    _required("total_accepted_draft_tokens", "INT32"),
    _required("total_draft_tokens", "INT32"),
)

# What the scheduler itself handles of the clients' inputs; every other one passes through untouched, see below.
HANDLED_INPUTS: Final = frozenset({
    "text_input", "max_tokens", "stop_words", "bad_words", "stream", "stop", "exclude_input_in_output",
    "return_num_input_tokens", "return_num_output_tokens", "embedding_bias_words", "embedding_bias_weights",
    "prompt_table_extra_id",
})  # fmt: skip

# Client input → engine input, for values that pass through.
CLIENT_TO_ENGINE: Final[dict[str, str]] = {
    "end_id": "end_id",
    "pad_id": "pad_id",
    "top_k": "runtime_top_k",
    "top_p": "runtime_top_p",
    "temperature": "temperature",
    "length_penalty": "len_penalty",
    "repetition_penalty": "repetition_penalty",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "min_tokens": "min_tokens",
    "min_length": "min_tokens",
    "seed": "seed",
    "random_seed": "seed",
    "beam_width": "beam_width",
    "num_return_sequences": "num_return_sequences",
    "return_log_probs": "return_log_probs",
    "lora_task_id": "lora_task_id",
    "lora_weights": "lora_weights",
    "lora_config": "lora_config",
    "guided_decoding_guide_type": "guided_decoding_guide_type",
    "guided_decoding_guide": "guided_decoding_guide",
    "prompt_embedding_table": "prompt_embedding_table",
    "prompt_vocab_size": "prompt_vocab_size",
    "return_context_logits": "return_context_logits",
    "return_generation_logits": "return_generation_logits",
    "return_perf_metrics": "return_perf_metrics",
}
