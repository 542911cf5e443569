"""`scripts/bench-proxy-plan`: everything about the plan that only a GPU can show, in one run."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from proxy_onnx.errors import ProxyError
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Predictor, Runtime
from proxy_tensorrt.cuda import Cuda
from proxy_tensorrt.engine import TensorRtRuntime, import_library
from proxy_tensorrt.loading import load_proxy
from proxy_tensorrt.plan import LIBRARIES
from ssjf_tools.plan.__main__ import MODEL_FILE, build_and_check, say
from ssjf_tools.plan.builder import Recipe, default_profile
from ssjf_tools.plan.comparison import Limits, compare
from ssjf_tools.plan.install import install
from ssjf_tools.plan.reference import Reference

DESCRIPTION = """\
On the GPU that serves: builds the plan, compares it with ONNX Runtime, installs it into a temporary folder, loads it as
the server does, and measures it against torch at 1, 8 and 64 rows. Needs what scripts/build-proxy-plan --export-only
wrote, and of tensorrt, tensorrt_rtx and torch what is there; each is measured, what is missing is said.
"""
ROWS = (1, 8, 64)
WARM_UP = 20
REPEATS = 200
Clock = Callable[[], float]


def measure(runtime: Runtime, rows: int, length: int, vocabulary: int, repeats: int, clock: Clock) -> dict[str, float]:
    """Latency of a call in ms, copies included, and rows a second of calls one after the other."""
    rng = np.random.default_rng(0)
    mask = np.ones((rows, length), np.int32)
    taken = []
    for _ in range(WARM_UP + repeats):
        ids = rng.integers(0, vocabulary, (rows, length), dtype=np.int32)
        begun = clock()
        runtime.run(ids, mask)
        taken.append(clock() - begun)
    kept = np.array(taken[WARM_UP:])
    p50, p99 = np.percentile(kept * 1e3, (50, 99))
    return {"p50_ms": float(p50), "p99_ms": float(p99), "rows_per_s": float(rows / kept.mean())}


def table(runtime: Runtime, metadata: ProxyMetadata, repeats: int, clock: Clock = time.perf_counter) -> dict[str, Any]:
    """By number of rows and length, as `8x128`: the shortest and the longest bucket."""
    lengths = sorted({metadata.length_buckets[0], metadata.max_length})
    return {
        f"{rows}x{length}": measure(runtime, rows, length, metadata.vocab_size, repeats, clock)
        for rows in ROWS
        for length in lengths
    }


def check_library(name: str, exported: Path, gpu: int, repeats: int) -> dict[str, Any]:
    """Build, compare, install, load again, measure. Raises ProxyError."""
    trt, metadata = import_library(name), ProxyMetadata.load(exported)
    recipe = Recipe(default_profile(max(ROWS), metadata.length_buckets))
    plan, facts, _ = build_and_check(exported, recipe, Limits(), trt, Cuda(gpu))
    with tempfile.TemporaryDirectory(prefix="ssjf-plan-") as folder:
        install(exported, Path(folder), plan, facts)
        loaded = load_proxy(Path(folder), max(ROWS), lambda: Cuda(gpu))
        try:
            again = compare(loaded.predictor, loaded.metadata, Reference.load(exported))
        finally:
            loaded.close()
    again.check(Limits())
    runtime = TensorRtRuntime(plan, recipe.profile, metadata.bins, trt, Cuda(gpu))
    try:
        return {"facts": facts.document(), "timing": table(runtime, metadata, repeats)}
    finally:
        runtime.close()


def check_torch(exported: Path, device: str, repeats: int) -> dict[str, Any]:
    """Compare and measure torch in FP16 (on a GPU) and FP32. Raises ProxyError or ValueError."""
    import torch  # noqa: PLC0415 - only where it is installed

    from ssjf_tools.plan.torch_baseline import TorchProxy  # noqa: PLC0415

    metadata, reference = ProxyMetadata.load(exported), Reference.load(exported)
    kinds = {"fp32": torch.float32} | ({"fp16": torch.float16} if device.startswith("cuda") else {})
    found: dict[str, Any] = {"version": torch.__version__, "device": device}
    for name, kind in kinds.items():
        runtime = TorchProxy(exported / MODEL_FILE, device, kind)
        compare(Predictor(runtime, metadata, max(ROWS)), metadata, reference).check(Limits())
        found[name] = table(runtime, metadata, repeats)
    return found


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All checks whose packages are here; figures are kept as each one ends. Raises ProxyError or ValueError."""
    results: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M"), "repeats": options.repeats}
    for name in LIBRARIES:
        if importlib.util.find_spec(name) is None:
            say(f"{name}: not installed here, not run")
        else:
            results[name] = check_library(name, options.exported, options.gpu, options.repeats)
            _keep(options.json, results)
    if importlib.util.find_spec("torch") is None:
        say("torch: not installed here, not run")
    else:
        results["torch"] = check_torch(options.exported, options.torch_device, options.repeats)
        _keep(options.json, results)
    return results


def _keep(file: Path | None, results: dict[str, Any]) -> None:
    if file is not None:
        file.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def show(results: dict[str, Any]) -> str:
    """The timings as a table of Markdown."""
    columns = {name: results[name]["timing"] for name in LIBRARIES if name in results}
    columns |= {
        f"torch {kind}": results["torch"][kind] for kind in ("fp16", "fp32") if kind in results.get("torch", {})
    }
    lines = ["| rows x tokens | " + " | ".join(f"{name}: p50 / p99 ms, rows/s" for name in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for place in next(iter(columns.values()), {}):
        cells = (timing[place] for timing in columns.values())
        text = " | ".join(f"{c['p50_ms']:.2f} / {c['p99_ms']:.2f}, {c['rows_per_s']:,.0f}" for c in cells)
        lines.append(f"| {place} | {text} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/bench-proxy-plan", description=DESCRIPTION, formatter_class=raw)
    parser.add_argument("--exported", type=Path, required=True, metavar="DIR", help="what --export-only wrote")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--gpu", type=int, default=0, metavar="N", help="number of the device (default: %(default)s)")
    parser.add_argument(
        "--torch-device", default="cuda:0", metavar="D", help="`cpu` tries the script (default: %(default)s)"
    )
    parser.add_argument(
        "--repeats", type=int, default=REPEATS, metavar="N", help="calls a figure (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; expected at least 1")
    try:
        results = run(options)
    except (ProxyError, ValueError, OSError, RuntimeError) as error:  # torch raises RuntimeError without a GPU
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(show(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
