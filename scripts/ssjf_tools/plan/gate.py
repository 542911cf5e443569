"""Is the graph clean for TensorRT? Asked where there is no GPU, of polygraphy and of tensorrt-rtx's builder."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from proxy_onnx.errors import PlanError
from proxy_tensorrt.engine import import_library
from proxy_tensorrt.plan import Profile
from ssjf_tools.plan.builder import Recipe, build_plan

LIBRARY = "tensorrt_rtx"
_POLYGRAPHY = "import sys; from polygraphy.tools import main; sys.exit(main())"  # its command may not be on PATH
Report = Callable[[str], None]


def gate(model: Path, profile: Profile, targets: Sequence[str], report: Report) -> None:
    """Lint the graph, and build it for compute capabilities `targets`, as ["8.9"]. Raises PlanError at the first fault.

    Needs the PyPI packages tensorrt-rtx and polygraphy (with onnx_graphsurgeon and onnxruntime).
    """
    if importlib.util.find_spec("polygraphy") is None:
        raise PlanError("the check needs: pip install tensorrt-rtx polygraphy onnx_graphsurgeon onnxruntime")
    _lint(model)
    report(f"polygraphy check lint: {model.name} is clean")
    trt = import_library(LIBRARY)
    content = model.read_bytes()
    for target in targets:
        begun = time.monotonic()
        plan = build_plan(trt, content, Recipe(profile, target=target))
        seconds = time.monotonic() - begun
        report(f"{LIBRARY} {trt.__version__}: built for {target}, {len(plan) / 1e6:.1f} MB in {seconds:.1f} s")


def _lint(model: Path) -> None:
    command = [sys.executable, "-c", _POLYGRAPHY, "check", "lint", str(model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PlanError(f"polygraphy check lint {model} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
