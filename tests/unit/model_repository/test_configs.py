"""Every config.pbtxt, parsed with Triton's own schema, against the one table of tensors; filled repositories, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ssjf import tensors
from ssjf.core.settings import CoreSettings
from ssjf.parameters import Parameters
from ssjf.service.settings import ServiceSettings
from ssjf.tensors import TensorSpec
from ssjf_tools.configure.__main__ import main as configure
from tests.unit.byte_tokenizer import write_tokenizer_dir
from tests.unit.configure.engine_folder import CHECKPOINT, ENGINE, write_config, write_llmapi_model
from tokenizer.settings import FolderSettings
from tokenizer.text import TextSettings

REPOSITORY = Path(__file__).parents[3] / "model_repository"
MODELS = ("ensemble", "length_predictor", "preprocessing", "scheduler", "tensorrt_llm", "unary")
PROFILES = ("config.pbtxt", "configs/cpu.pbtxt", "configs/llmapi.pbtxt")
CASES = [(model, profile) for model in MODELS for profile in PROFILES if (REPOSITORY / model / profile).exists()]

CLIENT = (tensors.TEXT_INPUT, tensors.MAX_TOKENS, *tensors.CLIENT_OPTIONAL_INPUTS)
STOP = next(spec for spec in tensors.CLIENT_OPTIONAL_INPUTS if spec.name == "stop")


def load(model: str, profile: str, repository: Path = REPOSITORY) -> Any:
    """As Triton does it: a model without the named configuration is loaded with its config.pbtxt."""
    path = repository / model / profile
    text = (path if path.exists() else repository / model / "config.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def expected(model: str, production: bool, llmapi: bool = False) -> tuple[list[TensorSpec], list[TensorSpec]]:
    """Inputs and outputs that a model must declare at least."""
    if llmapi and model == "tensorrt_llm":
        return [*tensors.LLMAPI_INPUTS], [*tensors.LLMAPI_OUTPUTS]
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
    check_tensors(model, load(model, profile), profile)


def check_tensors(model: str, config: Any, profile: str) -> None:
    inputs, outputs = expected(model, production="cpu" not in profile, llmapi="llmapi" in profile)
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
    check_complete(model, load(model, profile), profile)


def check_complete(model: str, config: Any, profile: str) -> None:
    assert config.name == model
    batchless = model == "tensorrt_llm" and "llmapi" in profile  # upstream's model has no batch dimension
    assert (config.max_batch_size == 0) == batchless
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


def test_the_flavours_of_the_scheduler_differ_in_one_parameter() -> None:
    configs = [load("scheduler", profile) for profile in ("config.pbtxt", "configs/llmapi.pbtxt")]
    flavours = [config.parameters["engine_flavour"].string_value for config in configs]
    assert flavours == ["inflight_batcher_llm", "llmapi"]
    for config in configs:
        del config.parameters["engine_flavour"]
    assert configs[0] == configs[1]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_parameter_is_one_that_the_model_knows(profile: str) -> None:
    known = {
        "scheduler": (CoreSettings, ServiceSettings, TextSettings),
        "preprocessing": (FolderSettings, TextSettings),
    }
    for model, settings in known.items():
        values = {key: entry.string_value for key, entry in load(model, profile).parameters.items()}
        parameters = Parameters(model, values, {}, REPOSITORY.parent)
        parameters.check_known(*settings)
        assert all(parameters.build(each) for each in settings)


def test_the_engine_has_every_parameter_that_scheduling_depends_on() -> None:
    """With our values, each of which has its reason beside it in the file."""
    config = load("tensorrt_llm", "config.pbtxt")
    values = {key: entry.string_value for key, entry in config.parameters.items()}
    assert values.items() >= {
        ("gpt_model_type", "inflight_fused_batching"),
        ("batch_scheduler_policy", "guaranteed_no_evict"),
        ("kv_cache_free_gpu_mem_fraction", "0.9"),
        ("enable_kv_cache_reuse", "true"),
        ("enable_chunked_context", "true"),
        ("max_beam_width", "1"),
        ("exclude_input_in_output", "true"),
        ("cancellation_check_period_ms", "50"),
        ("stats_check_period_ms", "100"),
    }
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    assert config.dynamic_batching.default_queue_policy.max_queue_size == config.max_batch_size
    assert "${" not in values["gpt_model_path"]  # TensorRT-LLM's backend expands nothing


@pytest.mark.parametrize(
    ("model", "profile"), [case for case in CASES if case[0] in ("preprocessing", "length_predictor")]
)
def test_steps_before_the_scheduler_hold_what_it_holds_and_no_more(model: str, profile: str) -> None:
    bound = load(model, profile).dynamic_batching.default_queue_policy.max_queue_size
    assert bound == 2 * CoreSettings().max_queue


# What NVIDIA's OpenAI frontend (python/openai of triton-inference-server/server) sends for a TensorRT-LLM model.
OPENAI_FRONTEND = {
    "text_input": "STRING", "stream": "BOOL", "max_tokens": "INT32", "stop_words": "STRING", "top_p": "FP32",
    "frequency_penalty": "FP32", "presence_penalty": "FP32", "seed": "UINT64", "temperature": "FP32",
    "guided_decoding_guide_type": "STRING", "guided_decoding_guide": "STRING", "return_num_input_tokens": "BOOL",
    "return_num_output_tokens": "BOOL",
}  # fmt: skip


def test_the_openai_frontends_inputs_are_declared() -> None:
    declared = {entry.name: spec_of(entry, True).dtype for entry in load("ensemble", "config.pbtxt").input}
    assert declared.items() >= OPENAI_FRONTEND.items()


@pytest.mark.parametrize("profile", ["config.pbtxt", "configs/llmapi.pbtxt"])
def test_a_filled_repository_keeps_the_contract(tmp_path: Path, profile: str) -> None:
    llmapi = "llmapi" in profile
    write_config(tmp_path / "engine", CHECKPOINT if llmapi else ENGINE)
    arguments = ["--engine-dir", str(tmp_path / "engine"), "--out", str(tmp_path)]
    arguments += ["--tokenizer-dir", str(write_tokenizer_dir(tmp_path / "tokenizer"))]
    arguments += ["--flavour", "llmapi" if llmapi else "inflight_batcher_llm"]
    arguments += ["--llmapi-model", str(write_llmapi_model(tmp_path / "nvidia"))]
    assert configure(arguments) == 0
    for model in MODELS:
        config = load(model, "config.pbtxt", tmp_path / "model_repository")
        check_tensors(model, config, profile)
        check_complete(model, config, profile)
        assert (tmp_path / "model_repository" / model / "1").is_dir()


@pytest.mark.parametrize(("model", "profile"), CASES)
def test_every_version_folder_exists(model: str, profile: str) -> None:
    assert (REPOSITORY / model / "1").is_dir()
