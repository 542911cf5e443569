"""Settings of the `tokenizer` backend (model `preprocessing`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class FolderSettings:
    """Where the served model's tokenizer and the proxy's tokenizer lie."""

    tokenizer_dir: Path = Path(".assets/smollm2")
    proxy_dir: Path = Path(".assets/proxy")
