"""What is to be served, from its own config.json: a TensorRT-LLM engine, or a checkpoint for the llmapi flavour.

The engine's layout is that of `trtllm-build` (TensorRT-LLM 0.11 to 1.2): `version`, `pretrained_config` (the model and
how it is spread over GPUs) and `build_config` (what the engine was built for, with its `plugin_config`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ssjf_tools.configure.facts import ConfigureError, Facts

_TOO_OLD = "TensorRT-LLM 0.11 and later write it; build the engine again with trtllm-build"
_NOT_AN_ENGINE = "is this a checkpoint? build an engine with trtllm-build, or serve it with --flavour llmapi"


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """Limits of an engine in requests and tokens, and the processes that it needs.

    None: the file does not say (a checkpoint has no batch size before it is served). `paged_context` is what reuse of
    the KV cache and chunked prompts need the engine to be built for.
    """

    config: Path
    version: str
    architecture: str
    vocab_size: int
    max_seq_len: int
    max_batch_size: int | None = None
    max_input_len: int | None = None
    max_num_tokens: int | None = None
    max_beam_width: int = 1
    world_size: int = 1
    paged_context: bool = True


def read_engine(folder: Path) -> EngineFacts:
    """A TensorRT-LLM engine. Raises ConfigureError naming the file and the key that is missing or unfit."""
    facts = Facts.read(folder / "config.json", "the engine's folder, --engine-dir")
    for section in ("pretrained_config", "build_config"):
        if not isinstance(facts.find(section), dict):
            raise ConfigureError(f"{facts.path}: key {section} is missing; {_NOT_AN_ENGINE}")
    _check_inflight_batching(facts)
    world_size = facts.whole_number("pretrained_config.mapping.world_size")
    for rank in range(world_size):
        if not (folder / f"rank{rank}.engine").is_file():
            raise ConfigureError(
                f"{folder / f'rank{rank}.engine'}: no such file, "
                f"but key pretrained_config.mapping.world_size of {facts.path} is {world_size}"
            )
    return EngineFacts(
        config=facts.path,
        version=f"TensorRT-LLM {facts.find('version') or 'unknown'}",
        architecture=str(facts.find("pretrained_config.architecture") or "unknown"),
        vocab_size=facts.whole_number("pretrained_config.vocab_size"),
        max_seq_len=facts.whole_number("build_config.max_seq_len", 2, _TOO_OLD),
        max_batch_size=facts.whole_number("build_config.max_batch_size"),
        max_input_len=facts.whole_number("build_config.max_input_len"),
        max_num_tokens=facts.whole_number("build_config.max_num_tokens"),
        max_beam_width=facts.whole_number("build_config.max_beam_width"),
        world_size=world_size,
        paged_context=facts.flag("build_config.plugin_config.use_paged_context_fmha"),
    )


def read_checkpoint(folder: Path) -> EngineFacts:
    """A Hugging Face checkpoint, which the llmapi flavour serves as it is. Raises ConfigureError like `read_engine`."""
    facts = Facts.read(folder / "config.json", "the checkpoint's folder, --engine-dir")
    if facts.find("build_config") is not None:
        raise ConfigureError(
            f"{facts.path}: key build_config: this is a TensorRT engine, and the llmapi flavour serves checkpoints; "
            "give the checkpoint's folder, or --flavour inflight_batcher_llm"
        )
    inner = "text_config." if facts.find("vocab_size") is None else ""  # where models of text and images keep it
    architectures = facts.find("architectures")
    return EngineFacts(
        config=facts.path,
        version="checkpoint",
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "unknown",
        vocab_size=facts.whole_number(f"{inner}vocab_size"),
        max_seq_len=facts.whole_number(f"{inner}max_position_embeddings", 2),
    )


def _check_inflight_batching(facts: Facts) -> None:
    """Requests can join and leave a running batch only with a paged KV cache and packed inputs."""
    kind, paged = facts.find("build_config.kv_cache_type"), facts.find("build_config.plugin_config.paged_kv_cache")
    if kind is not None and str(kind).rpartition(".")[2].upper() != "PAGED":
        raise ConfigureError(f"{facts.path}: key build_config.kv_cache_type is {kind!r}, inflight batching needs PAGED")
    if kind is None and paged is not True:
        raise ConfigureError(
            f"{facts.path}: key build_config.plugin_config.paged_kv_cache is {paged!r} (and build_config.kv_cache_type "
            "is missing), inflight batching needs true"
        )
    if facts.find("build_config.plugin_config.remove_input_padding") is False:
        raise ConfigureError(
            f"{facts.path}: key build_config.plugin_config.remove_input_padding is False, inflight batching needs true"
        )
