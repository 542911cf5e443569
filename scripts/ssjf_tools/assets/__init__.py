"""Builds what the `cpu` profile serves from installed packages: no download outside the package registries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

PARTS = ("smollm2", "proxy")


def ensure_assets(root: Path, report: Callable[[str], None], only: Iterable[str] | None = None) -> None:
    """Build the parts that are missing or out of date below `root`; safe when several processes do it at once.

    The builders are imported when needed: most starts find everything built and need neither gguf nor onnx.
    """
    for part in PARTS if only is None else tuple(only):
        if part == "smollm2":
            from ssjf_tools.assets.smollm2 import build_smollm2  # noqa: PLC0415

            build_smollm2(root / part, report)
        else:
            from ssjf_tools.assets.proxy import build_proxy  # noqa: PLC0415

            build_proxy(root / part, report)
