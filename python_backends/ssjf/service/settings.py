"""Settings of the live scheduler that the core has no opinion on: where things are, limits at the door, timeouts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

FLAVOURS: Final = ("inflight_batcher_llm", "llmapi")
_MIN_JOURNAL_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """One `scheduler` model's surroundings. URLs are gRPC `host:port`; times are seconds.

    `engine_url` may name several engine servers, separated by commas; `engine_slots` is the number of slots of each
    (None: max_inflight, which counts all of them, is shared out evenly). A running request that heard nothing from its
    engine for `engine_stall_s` is given up; while no engine can be reached, requests wait for at most `engine_wait_s`.
    `engine_tls_ca` encrypts the way to the engine, `engine_tls_cert` and `engine_tls_key` show who we are. `self_url`
    is the Triton that holds `length_predictor` (this one). `control_token` switches control requests on.

    `cancel_past_deadline` cuts an answer at its deadline; then a request that cannot be finished by it is not started.

    `journal_path` switches the journal of finished requests on (docs/journal.md): at most `journal_files` files of
    `journal_max_bytes`; with the prompts themselves only if `journal_prompts`.
    """

    engine_url: tuple[str, ...] = ("127.0.0.1:8001",)
    engine_model: str = "tensorrt_llm"
    engine_flavour: str = "inflight_batcher_llm"
    engine_slots: int | None = None
    engine_stall_s: float = 120.0
    engine_wait_s: float = 120.0
    engine_tls_ca: Path | None = None
    engine_tls_cert: Path | None = None
    engine_tls_key: Path | None = None
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
    journal_path: Path | None = None
    journal_prompts: bool = False
    journal_max_bytes: int = 100 * 2**20
    journal_files: int = 5

    def __post_init__(self) -> None:
        for key in ("engine_stall_s", "engine_wait_s", "predictor_timeout_s", "cancel_poll_s"):
            if not 0 < getattr(self, key) <= 86_400:
                raise ValueError(f"{key} is {getattr(self, key)}, expected more than 0 and at most 86400 seconds")
        for key in ("max_output_tokens", "max_stop_words", "max_word_bytes", "journal_files"):
            if getattr(self, key) < 1:
                raise ValueError(f"{key} is {getattr(self, key)}, expected at least 1")
        if self.journal_max_bytes < _MIN_JOURNAL_BYTES:
            raise ValueError(f"journal_max_bytes is {self.journal_max_bytes}, expected at least {_MIN_JOURNAL_BYTES}")
        self._check_engine()

    def _check_engine(self) -> None:
        if not self.engine_url:
            raise ValueError("engine_url is empty, expected host:port")
        for url in self.engine_url:
            if ":" not in url or self.engine_url.count(url) > 1:
                raise ValueError(f"engine_url has {url!r}, expected host:port, every one of them once")
        if self.engine_flavour not in FLAVOURS:
            raise ValueError(f"engine_flavour is {self.engine_flavour!r}, expected one of {', '.join(FLAVOURS)}")
        if self.engine_slots is not None and self.engine_slots < 1:
            raise ValueError(f"engine_slots is {self.engine_slots}, expected at least 1, or none")
        if (self.engine_tls_cert is None) != (self.engine_tls_key is None):
            raise ValueError("engine_tls_cert and engine_tls_key belong together, one of them is not set")
