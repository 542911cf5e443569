"""Every config.pbtxt that a deployment brings along, parsed with Triton's own schema like those of model_repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from ssjf_tools.bootstrap import CHECKOUT
from tests.unit.deploy.manifests import of_kind
from tests.unit.model_repository.test_configs import check_complete, check_tensors, load

CONFIGS = sorted((CHECKOUT / "deploy").rglob("*.pbtxt"))


def parse(path: Path) -> Any:
    return text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())


def test_all_of_them_are_checked() -> None:
    assert [path.name for path in CONFIGS] == ["length_predictor.pbtxt"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_tensors_are_those_of_the_table_and_nothing_is_left_to_auto_completion(path: Path) -> None:
    check_tensors(path.stem, parse(path), "config.pbtxt")
    check_complete(path.stem, parse(path), "config.pbtxt")


def test_the_proxy_without_a_gpu_is_the_cpu_profiles_but_for_folder_and_threads() -> None:
    (site,) = (parse(path) for path in CONFIGS if path.stem == "length_predictor")
    cpu, production = (load("length_predictor", name) for name in ("configs/cpu.pbtxt", "config.pbtxt"))
    assert set(site.parameters) == set(cpu.parameters)
    assert site.parameters["proxy_dir"] == production.parameters["proxy_dir"]
    for config in (site, cpu):
        config.ClearField("parameters")
    assert site == cpu


def test_the_cluster_gets_the_file_as_it_is() -> None:
    (path,) = CONFIGS
    given = [
        each["data"]["config.pbtxt"] for each in of_kind("many-engines", "ConfigMap") if "config.pbtxt" in each["data"]
    ]
    assert given == [path.read_text()]
