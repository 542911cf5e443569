"""Folders as `trtllm-build` and Hugging Face leave them: config.json in its real layout, weights as empty files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

# Keys and nesting of TensorRT-LLM 0.13 to 1.2; what nobody here reads is left out of the longer lists.
ENGINE: dict[str, Any] = {
    "version": "0.20.0",
    "pretrained_config": {
        "architecture": "LlamaForCausalLM",
        "dtype": "float16",
        "vocab_size": 264,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "max_position_embeddings": 4096,
        "mapping": {
            "world_size": 1,
            "gpus_per_node": 8,
            "cp_size": 1,
            "tp_size": 1,
            "pp_size": 1,
            "moe_tp_size": 1,
            "moe_ep_size": 1,
        },
        "quantization": {"quant_algo": None, "kv_cache_quant_algo": None, "group_size": 128},
    },
    "build_config": {
        "max_input_len": 4096,
        "max_seq_len": 4096,
        "opt_batch_size": None,
        "max_batch_size": 48,
        "max_beam_width": 1,
        "max_num_tokens": 8192,
        "opt_num_tokens": 48,
        "max_prompt_embedding_table_size": 0,
        "kv_cache_type": "PAGED",
        "gather_context_logits": False,
        "gather_generation_logits": False,
        "strongly_typed": True,
        "lora_config": {"lora_dir": [], "max_lora_rank": 64},
        "auto_parallel_config": {"world_size": 1, "gpus_per_node": 8},
        "plugin_config": {
            "dtype": "float16",
            "gpt_attention_plugin": "auto",
            "gemm_plugin": None,
            "context_fmha": True,
            "paged_kv_cache": True,
            "remove_input_padding": True,
            "tokens_per_block": 64,
            "use_paged_context_fmha": True,
            "multiple_profiles": False,
        },
    },
}
CHECKPOINT: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 264,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
}
MISSING = object()


def write_config(folder: Path, base: dict[str, Any], changes: dict[str, Any] | None = None) -> Path:
    """`base` with dotted keys changed (MISSING removes one) as config.json, and a rank file for each process."""
    values = copy.deepcopy(base)
    for key, value in (changes or {}).items():
        *way, last = key.split(".")
        inner = values
        for part in way:
            inner = inner[part]
        if value is MISSING:
            del inner[last]
        else:
            inner[last] = value
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(values))
    ranks = values.get("pretrained_config", {}).get("mapping", {}).get("world_size", 0)
    for rank in range(ranks if isinstance(ranks, int) else 0):
        (folder / f"rank{rank}.engine").touch()
    return folder


def write_llmapi_model(folder: Path) -> Path:
    """Stand-ins for NVIDIA's two files of the llmapi model: only copied, never run."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("model.py", "helpers.py"):
        (folder / name).write_text(f"# {name}\n")
    return folder
