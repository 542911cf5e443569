"""Every config.pbtxt, parsed with Triton's own schema, against the one table of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ssjf import tensors
from ssjf.tensors import TensorSpec

REPOSITORY = Path(__file__).parents[3] / "model_repository"
MODELS = ("ensemble", "length_predictor", "preprocessing", "scheduler", "tensorrt_llm", "unary")
PROFILES = ("config.pbtxt", "configs/cpu.pbtxt")
CASES = [(model, profile) for model in MODELS for profile in PROFILES]

CLIENT = (tensors.TEXT_INPUT, tensors.MAX_TOKENS, *tensors.CLIENT_OPTIONAL_INPUTS)
STOP = next(spec for spec in tensors.CLIENT_OPTIONAL_INPUTS if spec.name == "stop")


def load(model: str, profile: str) -> Any:
    return text_format.Parse((REPOSITORY / model / profile).read_text(), model_config_pb2.ModelConfig())


def expected(model: str, production: bool) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs that a model must declare at least."""
    client = [*CLIENT, *(tensors.PRODUCTION_OPTIONAL_INPUTS if production else ())]
    answers = [*tensors.CLIENT_OUTPUTS, *(tensors.PRODUCTION_OUTPUTS if production else ())]
    engine = [*tensors.ENGINE_REQUIRED_INPUTS, *tensors.ENGINE_OPTIONAL_INPUTS]
    optional = [TensorSpec(spec.name, spec.dtype, spec.dims, True) for spec in client]
    table = {
        "ensemble": (client, answers),
        "unary": (client, answers),
        "scheduler": ([*optional, *tensors.SCHEDULER_STEP_INPUTS], answers),
        "preprocessing": ([tensors.TEXT_INPUT, STOP], [*tensors.PREPROCESSING_OUTPUTS]),
        "length_predictor": ([*tensors.PROXY_INPUTS], [tensors.PROXY_OUTPUT]),
        "tensorrt_llm": (engine, [*tensors.ENGINE_OUTPUTS, *(tensors.PRODUCTION_OUTPUTS if production else ())]),
    }
    return table[model]


def spec_of(entry: Any, is_input: bool) -> TensorSpec:
    dtype = model_config_pb2.DataType.Name(entry.data_type).removeprefix("TYPE_")
    return TensorSpec(entry.name, dtype, tuple(entry.dims), is_input and entry.optional)


@pytest.mark.parametrize(("model", "profile"), CASES)
def test_tensors_are_those_of_the_table(model: str, profile: str) -> None:
    config = load(model, profile)
    inputs, outputs = expected(model, production=profile == "config.pbtxt")
    declared = {entry.name: spec_of(entry, True) for entry in config.input}
    for spec in inputs:
        assert declared[spec.name] == spec
    answered = {entry.name: spec_of(entry, False) for entry in config.output}
    for spec in outputs:
        bins_are_known = spec.name == "length_distribution" and answered[spec.name].dims != spec.dims
        assert bins_are_known or answered[spec.name] == spec
    if model not in ("tensorrt_llm", "length_predictor"):  # the engine may take more than the scheduler sends
        assert set(declared) == {spec.name for spec in inputs}
        assert set(answered) == {spec.name for spec in outputs}


@pytest.mark.parametrize(("model", "profile"), CASES)
def test_every_config_is_complete_by_itself(model: str, profile: str) -> None:
    """TensorRT-LLM's launcher starts Triton with --disable-auto-complete-config."""
    config = load(model, profile)
    assert config.name == model
    assert config.max_batch_size > 0
    assert config.input
    assert config.output
    if model == "ensemble":
        assert config.platform == "ensemble"
    else:
        assert config.backend
        assert sum(group.count for group in config.instance_group) >= 1
    assert config.model_transaction_policy.decoupled == (model in ("scheduler", "tensorrt_llm"))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_ensemble_maps_every_tensor_of_its_steps(profile: str) -> None:
    ensemble = load("ensemble", profile)
    known = {entry.name for entry in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        model = load(step.model_name, profile)
        assert set(step.input_map) == {entry.name for entry in model.input}
        assert set(step.output_map) <= {entry.name for entry in model.output}
        assert set(step.input_map.values()) <= known
        known |= set(step.output_map.values())
    assert {entry.name for entry in ensemble.output} <= known


@pytest.mark.parametrize("profile", PROFILES)
def test_one_queue_is_one_process(profile: str) -> None:
    assert [group.count for group in load("scheduler", profile).instance_group] == [1]


@pytest.mark.parametrize("profile", PROFILES)
def test_limits_agree_between_the_models_that_share_them(profile: str) -> None:
    scheduler, preprocessing = load("scheduler", profile).parameters, load("preprocessing", profile).parameters
    for key in ("tokenizer_dir", "proxy_dir", "prompt_format", "max_context_tokens"):
        assert scheduler[key].string_value == preprocessing[key].string_value


@pytest.mark.parametrize(("model", "profile"), CASES)
def test_every_version_folder_exists(model: str, profile: str) -> None:
    assert (REPOSITORY / model / "1").is_dir()
