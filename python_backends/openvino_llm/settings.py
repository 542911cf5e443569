"""Settings of the CPU engine (model `tensorrt_llm`, profile `cpu`) and the facts of the model it serves."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from openvino_llm.errors import EngineStartError

PRECISIONS = {"f32": "f32", "bf16": "bf16"}

# Tokens per block of the paged KV cache: fixed by OpenVINO GenAI for CPUs.
KV_BLOCK_TOKENS = 32


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """How the engine runs.

    `precision` `f32` (with a 16-bit KV cache) gives the same greedy answer alone and in any batch; `bf16` is up to
    twice as fast and does not. `max_num_seqs` is the number of batch slots, `num_kv_blocks` the KV pool in blocks of
    32 tokens (23 KiB a token for SmolLM2-135M), `max_batched_tokens` the tokens of one step: larger prefills faster,
    smaller keeps the pauses of running streams and of cancellation short. `inference_threads` 0 leaves the number to
    OpenVINO. An inference process that says nothing for `hang_timeout_s` is killed and started again; it says something
    every second and after every step.
    """

    model_dir: Path = Path(".assets/smollm2")
    precision: str = "f32"
    max_num_seqs: int = 16
    num_kv_blocks: int = 1024
    max_batched_tokens: int = 64
    inference_threads: int = 0
    cancel_poll_ms: int = 50
    start_timeout_s: float = 120.0
    hang_timeout_s: float = 6.0
    python_executable: str = ""

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        _check("max_num_seqs", self.max_num_seqs, 1, 256)
        _check("num_kv_blocks", self.num_kv_blocks, 2, 1 << 20)
        _check("max_batched_tokens", self.max_batched_tokens, self.max_num_seqs, 1 << 16)
        _check("inference_threads", self.inference_threads, 0, 1024)
        _check("cancel_poll_ms", self.cancel_poll_ms, 5, 10_000)
        _check("start_timeout_s", self.start_timeout_s, 1, 3600)
        _check("hang_timeout_s", self.hang_timeout_s, 1, 3600)


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """Sampling where a request leaves it open: the values that SmolLM2's authors recommend."""

    default_temperature: float = 0.2
    default_top_p: float = 0.9
    default_top_k: int = 0
    default_repetition_penalty: float = 1.1

    def __post_init__(self) -> None:
        _check("default_temperature", self.default_temperature, 0, 100)
        _check("default_top_p", self.default_top_p, 0, 1)
        _check("default_top_k", self.default_top_k, 0, 1 << 31)
        _check("default_repetition_penalty", self.default_repetition_penalty, 0.01, 100)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What the asset builder wrote down about the served model (`asset.json` beside the weights)."""

    weights: Path
    vocab_size: int
    context_length: int
    eos_token_ids: tuple[int, ...]

    @classmethod
    def read(cls, model_dir: Path) -> ModelFacts:
        """From `asset.json`. Raises EngineStartError when the assets are missing or unreadable."""
        path = model_dir / "asset.json"
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            weights = model_dir / str(facts["weights"])
            found = cls(weights, int(facts["vocab_size"]), int(facts["context_length"]), tuple(facts["eos_token_ids"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EngineStartError(
                f"model_dir: cannot read {path} ({error!r}); `python -m ssjf_tools.assets` makes it"
            ) from None
        if not weights.is_file():
            raise EngineStartError(f"model_dir: {weights} does not exist; `python -m ssjf_tools.assets` makes it")
        return found

    def longest_sequence(self, settings: EngineSettings) -> int:
        """Prompt and answer together, in tokens: the model's context or the whole KV pool, whichever is smaller."""
        return min(self.context_length, settings.num_kv_blocks * KV_BLOCK_TOKENS)


def _check(key: str, value: float, low: float, high: float) -> None:
    if not math.isfinite(value) or not low <= value <= high:
        raise ValueError(f"{key} is {value}, expected {low} to {high}")
