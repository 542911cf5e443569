"""An ONNX graph to a TensorRT plan. `tensorrt` and `tensorrt_rtx` have the same interface here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from proxy_onnx.errors import PlanError
from proxy_onnx.tensors import INPUTS
from proxy_tensorrt.plan import Profile

PRECISION = "strongly typed: FP16 inside the encoder's layers, FP32 for norms, softmax, residual sums, pooling and head"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a plan is built. target: a compute capability as `8.9` that need not be here (tensorrt_rtx only)."""

    profile: Profile
    version_compatible: bool = False
    target: str | None = None


def default_profile(max_rows: int, buckets: tuple[int, ...]) -> Profile:
    """Everything from one row of one token to the largest batch of the longest bucket.

    Best for an eighth of the rows at the middle bucket: half of the training prompts have at most 55 tokens.
    """
    return Profile(
        opt_rows=max(1, max_rows // 8),
        opt_length=buckets[len(buckets) // 2],
        max_rows=max_rows,
        max_length=buckets[-1],
    )


def build_plan(trt: Any, model: bytes, recipe: Recipe) -> bytes:
    """The serialised plan. Raises PlanError with what TensorRT's parser or builder said."""
    logger = trt.Logger(trt.Logger.WARNING)
    builder = trt.Builder(logger)
    # NOTE: TensorRT 11 knows strongly typed networks only; where the flag has gone, there is nothing to ask for.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(model):
        said = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
        raise PlanError(f"TensorRT {trt.__version__} cannot parse the graph: {said or 'its log says why'}")
    config = _config(trt, builder, recipe)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise PlanError(f"TensorRT {trt.__version__} cannot build the plan (its log says why)")
    return bytes(plan)


def _config(trt: Any, builder: Any, recipe: Recipe) -> Any:
    config = builder.create_builder_config()
    if recipe.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    if recipe.target is not None:
        _aim(trt, config, recipe.target)
    profile, shape = builder.create_optimization_profile(), recipe.profile
    for name in INPUTS:
        optimum, largest = (shape.opt_rows, shape.opt_length), (shape.max_rows, shape.max_length)
        profile.set_shape(name, (1, 1), optimum, largest)
    if config.add_optimization_profile(profile) < 0:
        raise PlanError(f"TensorRT refuses the optimisation profile {shape}")
    return config


def _aim(trt: Any, config: Any, target: str) -> None:
    known = getattr(trt, "ComputeCapability", None)
    wanted = getattr(known, "SM" + target.replace(".", ""), None)
    if wanted is None:
        names = [name for name in dir(known) if name.startswith("SM")] if known else []
        raise PlanError(f"{trt.__name__} cannot build for compute capability {target}; it can for {names or 'none'}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(wanted, 0)
