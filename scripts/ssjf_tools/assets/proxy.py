"""`.assets/proxy`: the proxy model of the `cpu` profile, from committed weights and the packaged encoder. No torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx

from ssjf_tools.assets.publish import build_once
from ssjf_tools.proxy.artifact import METADATA_FILE, ProxyArtifact, weight_files, write_json
from ssjf_tools.proxy.encoder import package_digest, package_dir
from ssjf_tools.proxy.quantize import for_cpu

Report = Callable[[str], None]

COMMITTED = Path(__file__).resolve().parents[3] / "model_repository" / "length_predictor" / "1"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"

# Part of the fingerprint: raise it when this builder makes something else of the same inputs.
BUILDER_VERSION = 5


def build_proxy(target: Path, report: Report) -> None:
    """model.onnx, tokenizer.json and proxy.json in `target`; does nothing where they are up to date.

    `SSJF_PROXY_WEIGHTS` names another trained proxy's folder (the output of scripts/train-proxy) than the shipped one.
    Raises EncoderError when the encoder package is missing or another version, MetadataError or HeadError for broken
    weights.
    """
    source = Path(os.environ.get("SSJF_PROXY_WEIGHTS") or COMMITTED)
    digest = _inputs_digest(source)

    def build(folder: Path) -> dict[str, Any]:
        report("proxy: building the ONNX model from the packaged encoder and the trained weights (a few seconds, once)")
        return assemble(source, folder)

    if build_once(target, digest, build, report):
        report(f"proxy: built in {target}")


def assemble(source: Path, folder: Path) -> dict[str, Any]:
    """Make what a server loads in `folder` from the trained proxy in `source`; returns facts for asset.json."""
    artifact = ProxyArtifact.load(source)
    onnx.save(for_cpu(artifact.onnx_model()), folder / MODEL)
    own = source / TOKENIZER
    write_tokenizer(own if artifact.encoder is not None else package_dir() / TOKENIZER, folder / TOKENIZER)
    digest = _inputs_digest(source)
    write_json(folder / METADATA_FILE, {**artifact.metadata.raw, "inputs_sha256": digest})
    return {"model": "length_predictor", "encoder": artifact.metadata.raw.get("encoder"), "inputs_sha256": digest}


def write_tokenizer(source: Path, target: Path) -> None:
    """Copy a tokenizer.json without its own truncation and padding: how long a row gets is proxy.json's matter."""
    document = json.loads(source.read_text(encoding="utf-8"))
    document["truncation"] = document["padding"] = None
    target.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")


def _inputs_digest(source: Path) -> str:
    """SHA-256 over everything that the result depends on."""
    digest = hashlib.sha256(f"{BUILDER_VERSION} {onnx.__version__} {package_digest()}".encode())
    for file in weight_files(source):
        digest.update(file.name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()
