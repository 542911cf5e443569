"""Settings of the live scheduler that the core has no opinion on: where things are, limits at the door, timeouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One `scheduler` model's surroundings. URLs are gRPC `host:port`; times are seconds.

    `engine_url` may name several engine servers, separated by commas. `self_url` is the Triton that holds
    `length_predictor` (this one). `control_token` switches control requests on. `progress_every` is the number of
    seconds after which a running request that heard nothing from its engine is given up.
    """

    engine_url: tuple[str, ...] = ("127.0.0.1:8001",)
    engine_model: str = "tensorrt_llm"
    engine_flavour: str = "inflight_batcher_llm"
    engine_stall_s: float = 120.0
    self_url: str = "127.0.0.1:8001"
    predictor_model: str = "length_predictor"
    predictor_timeout_s: float = 0.5
    tokenizer_dir: Path = Path(".assets/smollm2")
    proxy_dir: Path = Path(".assets/proxy")
    max_output_tokens: int = 1024
    max_stop_words: int = 16
    max_word_bytes: int = 256
    echo_prompt: bool = False
    control_token: str | None = None
    cancel_poll_s: float = 0.05
    cancel_past_deadline: bool = True

    def __post_init__(self) -> None:
        for key in ("engine_stall_s", "predictor_timeout_s", "cancel_poll_s"):
            if not 0 < getattr(self, key) <= 86_400:
                raise ValueError(f"{key} is {getattr(self, key)}, expected more than 0 and at most 86400 seconds")
        for key in ("max_output_tokens", "max_stop_words", "max_word_bytes"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)}, expected at least 1")
        if not self.engine_url:
            raise ValueError("engine_url is empty, expected host:port")
