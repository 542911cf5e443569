from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ssjf.core.settings import CoreSettings
from ssjf.parameters import ConfigurationError, Parameters
from ssjf.service.settings import ServiceSettings
from tokenizer.text import TextSettings


@dataclass(frozen=True)
class Example:
    name: str = "x"
    size: int = 1
    rate: float | None = None
    on: bool = False
    folder: Path = Path("a")
    urls: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}, expected at least 1")


def parameters(values: dict[str, str], environment: dict[str, str] | None = None) -> Parameters:
    return Parameters("scheduler", values, environment or {}, Path("/base"))


def test_texts_become_the_fields_types() -> None:
    values = {"name": "n", "size": "3", "rate": "0.5", "on": "true", "folder": "b/c", "urls": "a:1, b:2"}
    assert parameters(values).build(Example) == Example("n", 3, 0.5, True, Path("/base/b/c"), ("a:1", "b:2"))


def test_what_is_not_set_keeps_its_default_and_none_is_none() -> None:
    assert parameters({"rate": "none"}).build(Example) == Example()


def test_the_environment_beats_the_parameter() -> None:
    assert parameters({"size": "3"}, {"SSJF_SIZE": "5"}).build(Example).size == 5


def test_a_misspelt_variable_is_named_and_those_of_other_models_are_not() -> None:
    environment = {"SSJF_RAET": "1", "SSJF_FOLDRE": "x", "SSJF_SIZE": "2", "SSJF_CONTROL_TOKEN": "t", "FOLDR": "x"}
    assert parameters({}, environment).slips(Example) == [("SSJF_FOLDRE", "SSJF_FOLDER")]
    environment = {"SSJF_MAX_INFLGHT": "8", "SSJF_MAX_WAIT": "9", "SSJF_PROXY_DIR": "x", "SSJF_MAX_NUM_SEQS": "4"}
    assert parameters({}, environment).slips(ServiceSettings, CoreSettings) == [
        ("SSJF_MAX_INFLGHT", "SSJF_MAX_INFLIGHT"),
        ("SSJF_MAX_WAIT", "SSJF_MAX_WAIT_S"),
    ]


def test_variables_are_expanded_with_defaults() -> None:
    values = {"folder": "${ASSETS:-.assets}/x", "name": "${WHO}"}
    assert parameters(values, {"WHO": "me"}).build(Example).folder == Path("/base/.assets/x")
    assert parameters(values, {"WHO": "me", "ASSETS": "/abs"}).build(Example).folder == Path("/abs/x")
    with pytest.raises(ConfigurationError, match="'name' needs environment variable WHO"):
        parameters(values).build(Example)


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("size", "many", "parameter 'size' is 'many', expected a whole number"),
        ("size", "0", "size is 0, expected at least 1"),
        ("on", "maybe", "expected true or false"),
        ("rate", "fast", "expected a number"),
    ],
)
def test_a_wrong_value_names_model_key_value_and_expectation(key: str, text: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=f"scheduler: .*{message}"):
        parameters({key: text}).build(Example)


def test_unknown_keys_are_errors_and_tritons_own_are_not() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown parameter 'sise'; known: .*size"):
        parameters({"sise": "1"}).check_known(Example)
    parameters({"size": "1", "FORCE_CPU_ONLY_INPUT_TENSORS": "no"}).check_known(Example)


def test_a_model_gives_its_parameters_and_paths_start_beside_the_repository() -> None:
    args = {
        "model_name": "scheduler",
        "model_repository": "/srv/model_repository/scheduler",
        "model_config": '{"parameters": {"folder": {"string_value": "assets"}}}',
    }
    assert Parameters.of_model(args, {}).build(Example).folder == Path("/srv/assets")


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (CoreSettings, {"max_inflight": "0"}, "max_inflight is 0"),
        (CoreSettings, {"batching": "sometimes"}, "batching is 'sometimes'"),
        (CoreSettings, {"tenant_weights": '{"a": -1}'}, r"tenant_weights\['a'\] is -1"),
        (ServiceSettings, {"engine_stall_s": "0"}, "engine_stall_s is 0"),
        (TextSettings, {"prompt_format": "Chat"}, "prompt_format is 'Chat', expected raw or chat"),
        (TextSettings, {"system_prompt": "Be brief."}, "system_prompt is set, but prompt_format is 'raw'"),
        (TextSettings, {"max_context_tokens": "-5"}, "max_context_tokens is -5, expected at least 2"),
        (TextSettings, {"end_id": "-7"}, "end_id is -7, expected at least -1"),
    ],
)
def test_the_schedulers_settings_name_key_value_and_range(cls: type[Any], values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        parameters(values).build(cls)
