"""Settings of the `proxy_onnx` backend (model `length_predictor` of the CPU profile)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .errors import SettingsError

MOST_THREADS = 64
MOST_WATCH_S = 3600


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Where the model lies and how it runs.

    Every `proxy_watch_s` seconds the folder is looked at: a new proxy in it takes over (0: never;
    docs/proxy-tensorrt.md).
    """

    proxy_dir: Path = Path(".assets/proxy")
    proxy_threads: int = 1  # the LLM needs the cores more
    proxy_watch_s: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.proxy_threads <= MOST_THREADS:
            raise SettingsError(f"proxy_threads is {self.proxy_threads}; expected from 1 to {MOST_THREADS}")
        check_watch(self.proxy_watch_s)


def check_watch(watch_s: float) -> None:
    """Raises SettingsError: what the settings of every runtime share is out of range."""
    if not 0 <= watch_s <= MOST_WATCH_S:
        raise SettingsError(f"proxy_watch_s is {watch_s}; expected from 0 (never) to {MOST_WATCH_S} seconds")
