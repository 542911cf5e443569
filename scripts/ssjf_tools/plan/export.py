"""`python -m ssjf_tools.plan.export`: what a plan is built from and compared with, in one folder.

model.onnx (typed for TensorRT), proxy.json, tokenizer.json, and reference.npz: real prompts as token ids with ONNX
Runtime's answers to them by the graph in FP32. Whoever builds the plan needs no tokenizer and no ONNX Runtime.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from proxy_onnx.encode import ProxyEncoder
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.tensors import INPUTS, OUTPUT
from ssjf_tools.assets.proxy import COMMITTED, write_tokenizer
from ssjf_tools.plan.precision import to_typed
from ssjf_tools.plan.reference import Reference
from ssjf_tools.proxy.artifact import METADATA_FILE, ProxyArtifact, write_json
from ssjf_tools.proxy.encoder import package_dir

MODEL_FILE = "model.onnx"
BUNDLED_PROMPTS = Path(__file__).with_name("prompts.txt")
FEWEST_PROMPTS = 24  # of fewer, one swapped pair would decide over a plan


@dataclass(frozen=True, slots=True)
class Exported:
    """How much was written."""

    prompts: int
    nodes: int


def export_proxy(trained: Path, folder: Path, prompts: Sequence[str]) -> Exported:
    """Fill `folder` from the trained proxy in `trained` (proxy.json, head.npz …). Raises ProxyError or ValueError."""
    if len(prompts) < FEWEST_PROMPTS:
        raise ValueError(f"{len(prompts)} prompts; expected at least {FEWEST_PROMPTS} to compare rankings")
    folder.mkdir(parents=True, exist_ok=True)
    artifact = ProxyArtifact.load(trained)
    full = artifact.onnx_model()
    typed = to_typed(full)
    onnx.save(typed, folder / MODEL_FILE)
    own = trained / "tokenizer.json"  # a proxy on another encoder than the packaged one brings its tokenizer along
    write_tokenizer(own if own.is_file() else package_dir() / "tokenizer.json", folder / "tokenizer.json")
    write_json(folder / METADATA_FILE, artifact.metadata.raw)
    ids, mask = ProxyEncoder.from_dir(folder).encode(prompts)
    expected = _answers(full, artifact.metadata, ids, mask)
    Reference(ids, mask, expected).save(folder)
    return Exported(len(prompts), len(typed.graph.node))


def read_prompts(file: Path) -> list[str]:
    """One prompt a line, or for .jsonl the field `prompt` (a text). Raises ValueError with file and line."""
    # Not splitlines(): JSON may hold U+2028 and the like unescaped, which are no line ends in JSONL.
    lines = [
        (number, line) for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), 1) if line.strip()
    ]
    if file.suffix != ".jsonl":
        return [line for _, line in lines]
    return [_prompt(line, f"{file}:{number}") for number, line in lines]


def _prompt(line: str, place: str) -> str:
    try:
        found = json.loads(line)["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{place}: expected a JSON object with prompt: {error!r}") from error
    if not isinstance(found, str) or not found:
        raise ValueError(f"{place}: prompt must be a text that is not empty")
    return found


def _answers(
    model: onnx.ModelProto, metadata: ProxyMetadata, ids: NDArray[np.int32], mask: NDArray[np.int32]
) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    expected = np.empty((len(ids), metadata.bins), np.float32)
    for row in range(len(ids)):  # one at a time, at its own length: no padding that could hide a fault
        length = int(mask[row].sum())
        tensors = (ids[row : row + 1, :length], mask[row : row + 1, :length])
        expected[row] = session.run([OUTPUT], dict(zip(INPUTS, tensors, strict=True)))[0][0]
    return expected


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="python -m ssjf_tools.plan.export", description=__doc__)
    parser.add_argument("--proxy", type=Path, default=COMMITTED, help="trained proxy (default: the shipped one)")
    parser.add_argument("--out", type=Path, required=True, help="folder to fill")
    parser.add_argument("--prompts", type=Path, default=BUNDLED_PROMPTS, help="lines, or .jsonl with field prompt")
    options = parser.parse_args(arguments)
    try:
        done = export_proxy(options.proxy, options.out, read_prompts(options.prompts))
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.out}: {MODEL_FILE} with {done.nodes} nodes, ONNX Runtime's answers to {done.prompts} prompts")
    return 0


if __name__ == "__main__":
    sys.exit(main())
