"""A trained proxy on disk: proxy.json, head.npz and, if the encoder was tuned, adapter.npz; and its ONNX model."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from proxy_onnx.metadata import ProxyMetadata

from .adapter import Adapter
from .encoder import EncoderError, load_encoder, package_digest, package_dir
from .graph import build_graph
from .head import Head, HeadError

METADATA_FILE = "proxy.json"
HEAD_FILE = "head.npz"
ADAPTER_FILE = "adapter.npz"


@dataclass(frozen=True, slots=True)
class ProxyArtifact:
    """What training makes and serving needs, besides the packaged encoder."""

    metadata: ProxyMetadata
    head: Head
    adapter: Adapter | None = None  # what fine-tuning changed in the encoder

    @classmethod
    def load(cls, folder: Path) -> ProxyArtifact:
        """Read a folder that `save` wrote. Raises MetadataError, HeadError or AdapterError."""
        metadata = ProxyMetadata.load(folder / METADATA_FILE)
        head = Head.load(folder / HEAD_FILE)
        if head.bins != metadata.bins:
            raise HeadError(f"{folder / HEAD_FILE}: head has {head.bins} bins, {METADATA_FILE} has {metadata.bins}")
        frozen = bool(metadata.raw.get("encoder", {}).get("frozen", True))
        return cls(metadata, head, None if frozen else Adapter.load(folder / ADAPTER_FILE))

    def save(self, folder: Path) -> None:
        """Write the files; each appears whole or not at all, proxy.json last."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{os.getpid()}.npz"
        self.head.save(draft)
        draft.replace(folder / HEAD_FILE)
        if self.adapter is not None:
            self.adapter.save(draft)
            draft.replace(folder / ADAPTER_FILE)
        write_json(folder / METADATA_FILE, self.metadata.raw)

    def onnx_model(self) -> onnx.ModelProto:
        """The model in FP32 on the installed encoder. Raises EncoderError when that is not the one trained on."""
        wanted = self.metadata.raw.get("encoder", {})
        if wanted.get("weights") != package_digest():
            raise EncoderError(f"{package_digest()} is installed; this proxy was trained on {wanted.get('weights')}")
        spec, weights = load_encoder(package_dir(), wanted.get("layers", 0))
        return build_graph(spec, self.adapter.apply(weights) if self.adapter else weights, self.head)


def weight_files(folder: Path) -> list[Path]:
    """The files of a trained proxy, in a fixed order. Raises FileNotFoundError when one is missing."""
    files = [folder / METADATA_FILE, folder / HEAD_FILE]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: not a folder of a trained proxy")
    adapter = folder / ADAPTER_FILE
    return [*files, adapter] if adapter.is_file() else files


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    """Write indented JSON with short lists on one line; the file appears whole or not at all."""
    fields = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.items())
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")
    draft.replace(file)
