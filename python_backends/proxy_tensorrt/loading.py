"""From a folder to a proxy that can answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from proxy_onnx.errors import PlanError
from proxy_onnx.live import LoadedProxy
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Predictor

from .cuda import Cuda
from .engine import TensorRtRuntime, import_library, machine
from .plan import FACTS_FILE, PLAN_FILE, REMEDY, PlanFacts

WATCHED = (FACTS_FILE, PLAN_FILE)


def load_proxy(
    folder: Path,
    most_rows: int,
    device: Callable[[], Cuda],
    library: Callable[[str], Any] = import_library,
) -> LoadedProxy:
    """The proxy in `folder` on the GPU that `device` opens. Raises ProxyError; what was allocated is freed then."""
    metadata = ProxyMetadata.load(folder)
    facts = PlanFacts.load(folder)
    facts.check_proxy(metadata)
    try:
        plan = (folder / PLAN_FILE).read_bytes()
    except OSError as error:
        raise PlanError(f"{folder / PLAN_FILE} cannot be read: {error}; {REMEDY}") from error
    facts.check_files(folder, plan)
    trt = library(facts.machine.library)
    cuda = device()
    try:
        facts.check_machine(machine(trt, cuda))
        runtime = TensorRtRuntime(plan, facts.profile, metadata.bins, trt, cuda)
    except BaseException:
        cuda.free()
        raise
    return LoadedProxy(metadata, Predictor(runtime, metadata, min(most_rows, facts.profile.max_rows)), runtime.close)
