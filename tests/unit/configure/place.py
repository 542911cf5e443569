"""A site's folder in a test: what is in it before, and what `scripts/configure` has written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ssjf_tools.configure.__main__ import main

CHAT = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


@dataclass
class Place:
    """A site's folder before it is configured."""

    root: Path

    @property
    def arguments(self) -> list[str]:
        files = {"--engine-dir": "engine", "--tokenizer-dir": "tokenizer", "--out": "."}
        return [part for option, folder in files.items() for part in (option, str((self.root / folder).resolve()))]

    def run(self, *more: str) -> int:
        return main([*self.arguments, *more])

    def config(self, model: str) -> Any:
        path = self.root / "model_repository" / model / "config.pbtxt"
        return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())

    def parameters(self, model: str) -> dict[str, str]:
        return {key: entry.string_value for key, entry in self.config(model).parameters.items()}
