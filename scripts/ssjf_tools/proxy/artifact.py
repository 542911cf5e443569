"""A trained proxy on disk, and its ONNX model.

proxy.json, head.npz; adapter.npz if the packaged encoder was tuned; encoder.npz and tokenizer.json for another encoder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from proxy_onnx.metadata import ProxyMetadata

from .adapter import Adapter
from .describe import ENCODER_FILE, FIRST_TOKEN_POOLING
from .encoder import EncoderError, EncoderSpec, Weights, load_encoder, package_digest, package_dir
from .graph import build_graph
from .head import Head, HeadError

METADATA_FILE = "proxy.json"
HEAD_FILE = "head.npz"
ADAPTER_FILE = "adapter.npz"
TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True, slots=True)
class ProxyArtifact:
    """What training makes and serving needs, besides the packaged encoder.

    adapter: what tuning changed in the packaged encoder. encoder and tokenizer: another encoder's weights as they are
    served, and its tokenizer.json; both or none.
    """

    metadata: ProxyMetadata
    head: Head
    adapter: Adapter | None = None
    encoder: Weights | None = None
    tokenizer: str = ""

    @classmethod
    def load(cls, folder: Path) -> ProxyArtifact:
        """Read a folder that `save` wrote. Raises MetadataError, HeadError or AdapterError."""
        metadata = ProxyMetadata.load(folder / METADATA_FILE)
        head = Head.load(folder / HEAD_FILE)
        if head.bins != metadata.bins:
            raise HeadError(f"{folder / HEAD_FILE}: head has {head.bins} bins, {METADATA_FILE} has {metadata.bins}")
        facts = metadata.raw.get("encoder", {})
        if "file" in facts:
            return cls(metadata, head, None, load_weights(folder / ENCODER_FILE), read_text(folder / TOKENIZER_FILE))
        return cls(metadata, head, None if facts.get("frozen", True) else Adapter.load(folder / ADAPTER_FILE))

    def save(self, folder: Path) -> None:
        """Write the files; each appears whole or not at all, proxy.json last."""
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{os.getpid()}.npz"
        self.head.save(draft)
        draft.replace(folder / HEAD_FILE)
        if self.adapter is not None:
            self.adapter.save(draft)
            draft.replace(folder / ADAPTER_FILE)
        if self.encoder is not None:
            halves: dict[str, Any] = {name: value.astype(np.float16) for name, value in self.encoder.items()}
            np.savez(draft, **halves)
            draft.replace(folder / ENCODER_FILE)
            draft.write_text(self.tokenizer, encoding="utf-8")
            draft.replace(folder / TOKENIZER_FILE)
        for file, wanted in ((ADAPTER_FILE, self.adapter), (ENCODER_FILE, self.encoder)):
            if wanted is None:  # of an earlier training in the same folder
                (folder / file).unlink(missing_ok=True)
        write_json(folder / METADATA_FILE, self.metadata.raw)

    def onnx_model(self) -> onnx.ModelProto:
        """The model in FP32 on the installed encoder. Raises EncoderError when that is not the one trained on."""
        wanted = self.metadata.raw.get("encoder", {})
        first_token = self.metadata.raw.get("pooling") == FIRST_TOKEN_POOLING
        if self.encoder is not None:
            return build_graph(EncoderSpec(**wanted["spec"]), self.encoder, self.head, first_token=first_token)
        if wanted.get("weights") != package_digest():
            raise EncoderError(f"{package_digest()} is installed; this proxy was trained on {wanted.get('weights')}")
        spec, weights = load_encoder(package_dir(), wanted.get("layers", 0))
        tuned = self.adapter.apply(weights) if self.adapter else weights
        return build_graph(spec, tuned, self.head, first_token=first_token)


def load_weights(file: Path) -> Weights:
    """An encoder's weights that `save` wrote. Raises EncoderError, which names the file."""
    try:
        with np.load(file, allow_pickle=False) as stored:
            return {name: stored[name].astype(np.float32) for name in stored.files}
    except (OSError, ValueError) as error:
        raise EncoderError(f"{file}: {error}") from error


def read_text(file: Path) -> str:
    """A text file. Raises EncoderError, which names it."""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise EncoderError(f"{file}: {error}") from error


def weight_files(folder: Path) -> list[Path]:
    """The files of a trained proxy, in a fixed order. Raises FileNotFoundError when one is missing."""
    files = [folder / METADATA_FILE, folder / HEAD_FILE]
    for file in files:
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing: not a folder of a trained proxy")
    return files + [folder / name for name in (ADAPTER_FILE, ENCODER_FILE, TOKENIZER_FILE) if (folder / name).is_file()]


def write_json(file: Path, document: Mapping[str, Any]) -> None:
    """Write indented JSON with short lists on one line; the file appears whole or not at all."""
    fields = (f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in document.items())
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.write_text("{\n" + ",\n".join(fields) + "\n}\n", encoding="utf-8")
    draft.replace(file)
