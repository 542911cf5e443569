"""`scripts/build-proxy-plan`: export, build, compare, install."""

from __future__ import annotations

import datetime
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from proxy_onnx.errors import ProxyError
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Predictor
from proxy_tensorrt.cuda import Cuda
from proxy_tensorrt.engine import TensorRtRuntime, import_library, machine
from proxy_tensorrt.plan import PlanFacts, sha256
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.plan.builder import PRECISION, Recipe, build_plan, default_profile
from ssjf_tools.plan.comparison import Comparison, Limits, compare
from ssjf_tools.plan.gate import gate
from ssjf_tools.plan.install import install
from ssjf_tools.plan.options import parse
from ssjf_tools.plan.reference import Reference

MODEL_FILE = "model.onnx"


def say(text: str) -> None:
    """One line of progress."""
    print(text, file=sys.stderr, flush=True)


def export(options: Namespace, folder: Path) -> None:
    """In the `serve` environment, which has ONNX Runtime. Raises CalledProcessError, its errors printed by then, or
    ValueError where that environment cannot be made: in the image of deploy/Dockerfile.
    """
    if not (CHECKOUT / "requirements").is_dir():
        raise ValueError(
            f"{CHECKOUT} has no requirements/ to install for an export: run scripts/build-proxy-plan --export-only DIR "
            "in a checkout, then --exported DIR here"
        )
    say("exporting the graph and ONNX Runtime's answers to the prompts")
    command = [str(CHECKOUT / "scripts" / "_run"), "--extra", "serve", "ssjf_tools.plan.export", "--out", str(folder)]
    for name in ("proxy", "prompts"):
        if getattr(options, name) is not None:
            command += [f"--{name}", str(getattr(options, name))]
    subprocess.run(command, check=True)


def build_and_check(
    folder: Path, recipe: Recipe, limits: Limits, trt: Any, cuda: Cuda
) -> tuple[bytes, PlanFacts, Comparison]:
    """A plan of the graph in `folder` that ranks its prompts as ONNX Runtime does. Raises ProxyError or ValueError."""
    metadata, reference = ProxyMetadata.load(folder), Reference.load(folder)
    model = (folder / MODEL_FILE).read_bytes()
    here = machine(trt, cuda)
    say(f"building with {here.library} {here.library_version} on {here.gpu} ({here.compute_capability})")
    begun = time.monotonic()
    plan = build_plan(trt, model, recipe)
    say(f"  {len(plan) / 1e6:.1f} MB in {time.monotonic() - begun:.0f} s; comparing with ONNX Runtime")
    runtime = TensorRtRuntime(plan, recipe.profile, metadata.bins, trt, cuda)
    try:
        found = compare(Predictor(runtime, metadata, recipe.profile.max_rows), metadata, reference)
    finally:
        runtime.close()
    found.check(limits)
    facts = PlanFacts(
        machine=here,
        version_compatible=recipe.version_compatible,
        profile=recipe.profile,
        precision=PRECISION,
        onnx_sha256=sha256(model),
        plan_sha256=sha256(plan),
        proxy_sha256=sha256((folder / "proxy.json").read_bytes()),
        built=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        comparison=asdict(found),
    )
    return plan, facts, found


def run(
    options: Namespace,
    folder: Path,
    library: Callable[[str], Any] = import_library,
    device: Callable[[int], Cuda] = Cuda,
) -> None:
    """What the command line asks for, from the exported `folder`. Raises ProxyError, ValueError or OSError."""
    profile = default_profile(options.max_batch, ProxyMetadata.load(folder).length_buckets)
    if options.gate:
        gate(folder / MODEL_FILE, profile, options.gate, say)
        return
    recipe = Recipe(profile, options.version_compatible)
    plan, facts, found = build_and_check(folder, recipe, options.limits, library(options.library), device(options.gpu))
    install(folder, options.into, plan, facts)
    say(
        f"installed in {options.into}: tau_b {found.tau:.4f} on {found.prompts} prompts, "
        f"probabilities within {found.probability_difference:.1e}, means within {found.mean_difference:.2g} tokens"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line entry."""
    options = parse(arguments)
    try:
        if options.export_only:
            export(options, options.export_only)
            return 0
        if options.exported:
            run(options, options.exported)
            return 0
        with tempfile.TemporaryDirectory(prefix="ssjf-plan-") as folder:
            export(options, Path(folder))
            run(options, Path(folder))
    except subprocess.CalledProcessError:
        return 1
    except (ProxyError, ValueError, OSError) as error:
        print(f"error: {error}\nNothing was installed.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
