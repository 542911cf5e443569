"""Makes proxy.json: bins, limits and training facts of a proxy."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from proxy_onnx.metadata import FORMAT, ProxyMetadata

from .bins import LengthBins
from .data import LabelledPrompt
from .encoder import EncoderSpec, package_digest
from .training_set import TrainingSet

# Three of six layers: with n-grams and a teacher they rank about as four did before, in a fifth less time.
ENCODER_LAYERS = 3
LENGTH_BUCKETS = (16, 32, 64, 128, 256)
ENCODER_FILE = "encoder.npz"  # beside proxy.json: an encoder that no package brings
FIRST_TOKEN_POOLING = "first token of the last layer"


def describe_input(bins: LengthBins, spec: EncoderSpec, max_length: int, head_tokens: int | None) -> ProxyMetadata:
    """What a server needs to know before anything is trained: bins, and how much of a prompt is read."""
    longest = min(max_length, spec.positions)
    buckets = [length for length in LENGTH_BUCKETS if length < longest]
    document: dict[str, Any] = {
        "format": FORMAT,
        "bin_edges": [float(edge) for edge in bins.edges],
        "bin_means": [round(float(mean), 3) for mean in bins.means],
        "open_last_bin": True,
        "max_length": longest,
        "length_buckets": [*buckets, longest],
        "vocab_size": spec.vocabulary,
        "text": "the prompt as the client sends it, without chat template",
        "truncation": {"kind": "head_tail", "head_tokens": longest // 2 if head_tokens is None else head_tokens},
    }
    return ProxyMetadata.from_document(document)


def describe(
    data: TrainingSet, training: Mapping[str, Any], *, frozen: bool = True, first_token: bool = False
) -> ProxyMetadata:
    """Metadata of a proxy trained on `data`; first_token: its head takes the first token of the last layer alone."""
    encoder = (
        {"weights": package_digest()} if data.folder is None else {"file": ENCODER_FILE, "spec": asdict(data.spec)}
    )
    document = {
        **data.encoder.metadata.raw,
        "pooling": FIRST_TOKEN_POOLING if first_token else "mean and maximum of the embeddings and of every layer",
        "encoder": {**encoder, "layers": data.spec.layers, "frozen": frozen},
        "training": dict(training),
    }
    return ProxyMetadata.from_document(document)


def data_facts(files: Sequence[Path], prompts: Sequence[LabelledPrompt]) -> dict[str, Any]:
    """What the proxy was trained on: files by name and hash, counts."""
    samples = [sample for prompt in prompts for sample in prompt.samples]
    return {
        "files": {file.name: file_digest(file) for file in files},
        "prompts": len(prompts),
        "samples": len(samples),
        "censored": sum(sample.censored for sample in samples),
        "mean_tokens": round(sum(sample.tokens for sample in samples) / len(samples), 1),
    }


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()
