"""Settings of the `proxy_tensorrt` backend (model `length_predictor` in production)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from proxy_onnx.errors import SettingsError
from proxy_onnx.settings import check_watch

MOST_ROWS = 1024


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """Where the plan lies and how it runs.

    `proxy_dir` holds model.plan, plan.json, proxy.json and tokenizer.json (`scripts/build-proxy-plan`). Every
    `proxy_watch_s` seconds it is looked at: a new plan in it takes over (0: never; docs/proxy-tensorrt.md).
    `proxy_max_batch_rows` is cut at what the plan was built for.
    """

    proxy_dir: Path = Path("/opt/ssjf/proxy")
    proxy_max_batch_rows: int = 64
    proxy_watch_s: float = 2.0

    def __post_init__(self) -> None:
        if not 1 <= self.proxy_max_batch_rows <= MOST_ROWS:
            raise SettingsError(f"proxy_max_batch_rows is {self.proxy_max_batch_rows}; expected from 1 to {MOST_ROWS}")
        check_watch(self.proxy_watch_s)
