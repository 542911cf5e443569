"""Deciding: from facts about engine and tokenizer to every value that is filled in, each with its reason. No I/O."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ssjf_tools.configure.engine import EngineFacts
from ssjf_tools.configure.facts import ConfigureError
from ssjf_tools.configure.options import ConfigureOptions
from ssjf_tools.configure.tokenizer import TokenizerFacts

# A checkpoint has no batch size of its own before it is served.
_LLMAPI_SLOTS = 64
# More slots than this are rarely full: the KV cache is, and then the queue stands inside the engine, in its order.
_MANY_SLOTS = 256
# A token of text is rarely longer; the setting's own default is for contexts of up to 32,768 tokens.
_BYTES_PER_TOKEN = 8
_DEFAULT_PROMPT_BYTES = 262_144
# What one scheduler carries when each of them sends every token by itself, 40 a second (docs/results.md).
_SLOTS_OF_SINGLE_STEPS = 64


@dataclass(frozen=True, slots=True)
class Decision:
    """One value that was decided, and why."""

    model: str
    key: str
    value: str
    why: str


@dataclass(frozen=True, slots=True)
class Site:
    """A filled repository before it is written. `engine_batch` is the engine model's batch size; None: it has none.

    `model_yaml` is the llmapi flavour's own configuration.
    """

    decisions: tuple[Decision, ...]
    engine_batch: int | None
    notes: tuple[str, ...] = ()
    model_yaml: Mapping[str, Any] = field(default_factory=dict)

    def parameters(self, model: str) -> dict[str, str]:
        """What goes into this model's config.pbtxt."""
        return {each.key: each.value for each in self.decisions if each.model == model}


def decide(
    options: ConfigureOptions, engine: EngineFacts, tokenizer: TokenizerFacts, proxy_is_there: bool = True
) -> Site:
    """Every value. Raises ConfigureError for an option that goes beyond the engine, naming both."""
    context = _context(options, engine)
    slots, slots_why = _slots(options, engine)
    shared = _shared(options, context)
    decisions = [Decision("scheduler", *each) for each in shared]
    decisions += [Decision("scheduler", *each) for each in _scheduler(options, tokenizer, context, slots, slots_why)]
    decisions += [Decision("preprocessing", key, value, "as in scheduler") for key, value, _why in shared]
    llmapi = options.flavour == "llmapi"
    if not llmapi:
        decisions += [Decision("tensorrt_llm", *each) for each in _inflight(options, engine)]
    decisions.append(Decision("length_predictor", "proxy_dir", _proxy(options), "as in scheduler"))
    return Site(
        tuple(decisions),
        None if llmapi else engine.max_batch_size,
        tuple(_notes(options, engine, tokenizer, slots, proxy_is_there)),
        _model_yaml(options, context, slots) if llmapi else {},
    )


def _context(options: ConfigureOptions, engine: EngineFacts) -> int:
    if options.max_seq_len is not None and options.max_seq_len > engine.max_seq_len:
        raise ConfigureError(
            f"--max-seq-len is {options.max_seq_len}, but key max_position_embeddings of {engine.config} is "
            f"{engine.max_seq_len}"
        )
    return options.max_seq_len or engine.max_seq_len


def _slots(options: ConfigureOptions, engine: EngineFacts) -> tuple[int, str]:
    if options.max_inflight is None:
        if engine.max_batch_size is None:
            return _LLMAPI_SLOTS, "a checkpoint names no batch size; --max-inflight sets another"
        return engine.max_batch_size, "the engine's max_batch_size: what it cannot take waits here, where it is ordered"
    if engine.max_batch_size is not None and options.max_inflight > engine.max_batch_size:
        raise ConfigureError(
            f"--max-inflight is {options.max_inflight}, but key build_config.max_batch_size of {engine.config} is "
            f"{engine.max_batch_size}: the rest would wait in the engine, in its order"
        )
    return options.max_inflight, "--max-inflight"


def _shared(options: ConfigureOptions, context: int) -> list[tuple[str, str, str]]:
    """What `preprocessing` and `scheduler` must agree on."""
    bytes_limit = max(_DEFAULT_PROMPT_BYTES, _BYTES_PER_TOKEN * context)
    values = [
        ("tokenizer_dir", options.served(options.tokenizer_dir), "--tokenizer-dir"),
        ("prompt_format", options.prompt_format, "--prompt-format"),
        ("max_context_tokens", str(context), "the engine's max_seq_len: prompt and answer together"),
        ("max_prompt_bytes", str(bytes_limit), f"{_BYTES_PER_TOKEN} bytes a token; checked before any work is done"),
        ("proxy_dir", _proxy(options), "--proxy-dir, or OUT/proxy"),
    ]
    if options.system_prompt is not None:
        values.append(("system_prompt", options.system_prompt, "--system-prompt"))
    if options.prompt_format == "raw":
        added = str(options.add_special_tokens).lower()
        values.append(("add_special_tokens", added, "raw prompts: does the tokenizer add the start token?"))
    return values


def _proxy(options: ConfigureOptions) -> str:
    return options.served(options.proxy_dir or options.out / "proxy")


def _scheduler(
    options: ConfigureOptions, tokenizer: TokenizerFacts, context: int, slots: int, slots_why: str
) -> list[tuple[str, str, str]]:
    longest = options.max_output_tokens or context - 1
    if longest >= context:
        raise ConfigureError(f"--max-output-tokens is {longest}, expected less than the context of {context} tokens")
    why = "--max-output-tokens" if options.max_output_tokens else "all that a prompt of one token leaves: as upstream"
    values = [
        ("engine_flavour", options.flavour, "--flavour"),
        ("max_inflight", str(slots), slots_why),
        ("max_output_tokens", str(longest), why),
    ]
    if options.kv_tokens is not None:
        values.append(("max_inflight_tokens", str(options.kv_tokens), "--kv-tokens: prompts and predicted answers"))
    if options.flavour != "llmapi":
        values += [
            ("end_id", str(tokenizer.end_id), "where clients leave it open; without one no answer would end by itself"),
            ("pad_id", str(tokenizer.pad_id), "where clients leave it open"),
        ]
    return values


def _inflight(options: ConfigureOptions, engine: EngineFacts) -> list[tuple[str, str, str]]:
    paged = str(engine.paged_context).lower()
    built = f"the engine was {'' if engine.paged_context else 'not '}built with use_paged_context_fmha"
    values = [
        ("gpt_model_path", options.served(options.engine_dir), "--engine-dir"),
        ("max_beam_width", str(engine.max_beam_width), "the engine's max_beam_width"),
        ("enable_kv_cache_reuse", paged, built),
        ("enable_chunked_context", paged, built),
        ("kv_cache_free_gpu_mem_fraction", f"{options.kv_cache_fraction:g}", "--kv-cache-fraction"),
    ]
    if options.kv_tokens is not None:
        values.append(("max_tokens_in_paged_kv_cache", str(options.kv_tokens), "--kv-tokens"))
    return values


def _model_yaml(options: ConfigureOptions, context: int, slots: int) -> dict[str, Any]:
    """The llmapi model's settings, named as TensorRT-LLM's LlmArgs names them."""
    steps = options.stream_interval or math.ceil(slots / _SLOTS_OF_SINGLE_STEPS)
    cache: dict[str, Any] = {"free_gpu_memory_fraction": options.kv_cache_fraction, "enable_block_reuse": True}
    return {
        "model": options.served(options.engine_dir),
        "tokenizer": options.served(options.tokenizer_dir),
        "backend": "pytorch",
        "tensor_parallel_size": options.tensor_parallel,
        "max_batch_size": slots,
        "max_seq_len": context,
        **({"stream_interval": steps} if steps > 1 else {}),
        "enable_chunked_prefill": True,
        "kv_cache_config": cache | ({"max_tokens": options.kv_tokens} if options.kv_tokens else {}),
        "scheduler_config": {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"},
        "triton_config": {"max_batch_size": 0, "decoupled": True, "cancellation_check_period_ms": 50},
    }


def yaml_text(values: Mapping[str, Any], indent: str = "") -> str:
    """Nested settings as YAML; a scalar is written as JSON, which YAML reads."""
    lines = []
    for key, value in values.items():
        nested = isinstance(value, Mapping)
        lines.append(f"{indent}{key}:" + ("" if nested else f" {json.dumps(value, ensure_ascii=False)}"))
        lines += [yaml_text(value, indent + "  ")] if nested else []
    return "\n".join(lines)


def _notes(
    options: ConfigureOptions, engine: EngineFacts, tokenizer: TokenizerFacts, slots: int, proxy_is_there: bool
) -> list[str]:
    """What the operator should know and nobody can decide for him."""
    notes = []
    if slots > _MANY_SLOTS and options.kv_tokens is None:
        notes.append(
            f"{slots} slots are more than the KV cache usually holds: then requests wait inside the engine, in its "
            "order. Give --kv-tokens (the engine's log says how many it allocated) or a smaller --max-inflight."
        )
    longest = min(engine.max_input_len or engine.max_seq_len, engine.max_seq_len - 1)
    if not engine.paged_context:
        longest = min(longest, engine.max_num_tokens or longest)
    if longest < engine.max_seq_len - 1:
        notes.append(f"the engine refuses prompts of more than {longest} tokens (max_input_len, max_num_tokens).")
    if tokenizer.other_ends and options.flavour != "llmapi":
        notes.append(
            f"generation_config.json lists more end tokens, {list(tokenizer.other_ends)}; the engine takes one, "
            f"{tokenizer.end_id}. If answers run on, --end-id takes another, or clients send them as stop_words."
        )
    if tokenizer.doubled_start and options.flavour == "llmapi":
        notes.append("the llmapi model adds a start token to what the chat template writes: prompts begin with two.")
    outside = [path for path in (options.engine_dir, options.tokenizer_dir) if not path.is_relative_to(options.out)]
    if options.seen_as is not None and outside:
        notes.append(f"not inside OUT, so --seen-as leaves them as they are: {', '.join(map(str, outside))}")
    if not proxy_is_there:
        notes.append(f"{options.proxy_dir} is not there yet: scripts/build-proxy-plan --into it, where the GPU is.")
    return notes
