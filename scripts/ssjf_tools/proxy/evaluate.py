"""`scripts/eval-proxy`: how good a trained proxy is on labelled prompts."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from proxy_onnx.encode import ProxyEncoder
from proxy_onnx.errors import ProxyError
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Predictor
from proxy_onnx.runtime import OnnxRuntime
from ssjf_tools.assets.proxy import COMMITTED, assemble
from ssjf_tools.simulate.plots import check_available

from . import plots
from .artifact import write_json
from .bins import LengthBins
from .ceiling import ceiling_scores
from .commands import add_data_arguments, run_command
from .data import DataError, LabelledPrompt, load_labelled
from .describe import file_digest
from .latency import latency_ms
from .scores import score, score_groups, score_scheduling


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry; 0, or 1 with one line that says what is wrong."""
    return run_command(_parser(), _evaluate, arguments)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/eval-proxy",
        description="Scores a trained proxy on labelled prompts: rank correlation, errors, calibration, latency on one "
        "CPU thread, and what its order is worth in the simulator (share of the oracle's gain, 1 and 8 slots, load "
        "0.9). The model that is scored is the one that the cpu profile serves.",
    )
    parser.add_argument("--proxy", type=Path, default=COMMITTED, metavar="DIR", help="default: the shipped proxy")
    add_data_arguments(parser)
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here as well")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw predicted.png and calibration.png (matplotlib)")
    return parser


def _evaluate(options: argparse.Namespace) -> None:
    if options.plots is not None:
        check_available()
    prompts = load_labelled(options.prompts, options.lengths)
    if not prompts:
        raise DataError("no prompt has a length")
    with tempfile.TemporaryDirectory(prefix="ssjf-proxy-") as folder:
        assemble(options.proxy, Path(folder))
        metadata = ProxyMetadata.load(Path(folder))
        runtime = OnnxRuntime(Path(folder), threads=1)
        probabilities = _predict(Predictor(runtime, metadata, None), ProxyEncoder.from_dir(Path(folder)), prompts)
        figures = latency_ms(runtime.run, metadata.max_length, metadata.vocab_size)
    bins = LengthBins(metadata.bin_edges, metadata.bin_means)
    figures = {
        **score(probabilities, prompts, bins),
        **score_groups(probabilities, prompts, bins),
        **score_scheduling(probabilities, prompts, bins),
        **ceiling_scores(probabilities, prompts, bins),
        **figures,
    }
    _report(figures, options, _seen(metadata, options.lengths))
    if options.plots is not None:
        for path in plots.draw(options.plots, probabilities, prompts, bins):
            print(f"plot: {path}")


def _predict(predictor: Predictor, encoder: ProxyEncoder, prompts: Sequence[LabelledPrompt]) -> NDArray[np.float64]:
    """Distributions [prompts, K], as the server computes them. Raises DistributionError."""
    rows = []
    for answer in predictor.predict([encoder.encode([prompt.text]) for prompt in prompts]):
        if isinstance(answer, ProxyError):
            raise answer
        rows.append(answer[0])
    return np.asarray(np.stack(rows), dtype=np.float64)


def _seen(metadata: ProxyMetadata, files: Sequence[Path]) -> bool:
    """Whether the proxy was trained on one of these files of lengths."""
    known = metadata.raw.get("training", {}).get("data", {}).get("files", {})
    return any(file_digest(file) in known.values() for file in files)


def _report(figures: dict[str, Any], options: argparse.Namespace, seen: bool) -> None:
    for name, value in figures.items():
        print(f"{name:22} {value:>10g}")
    if seen:
        print(
            "NOTE: the proxy was trained on these lengths, so these are no held-out figures; "
            "those are in its proxy.json under training.fine_tuning.holdout if its encoder was tuned, else under "
            "training.cross_validation."
        )
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.json, {**figures, "trained_on_these_lengths": seen})


if __name__ == "__main__":
    sys.exit(main())
