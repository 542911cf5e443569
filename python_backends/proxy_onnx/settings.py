"""Settings of the `proxy_onnx` backend (model `length_predictor` of the CPU profile)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import SettingsError

MOST_THREADS = 64


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Where the model lies and how it runs."""

    proxy_dir: Path = Path(".assets/proxy")
    proxy_threads: int = 1  # the LLM needs the cores more
    proxy_max_batch_rows: int = 32  # rows per run: bounds memory when many requests come at once

    def __post_init__(self) -> None:
        if not 1 <= self.proxy_threads <= MOST_THREADS:
            raise SettingsError(f"proxy_threads is {self.proxy_threads}; expected from 1 to {MOST_THREADS}")
        if not 1 <= self.proxy_max_batch_rows <= 1024:
            raise SettingsError(f"proxy_max_batch_rows is {self.proxy_max_batch_rows}; expected from 1 to 1024")
