from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from proxy_onnx.errors import PlanError, SettingsError
from proxy_tensorrt.plan import FACTS_FILE, PlanFacts
from proxy_tensorrt.settings import PlanSettings
from tests.unit.proxy import small_proxy
from tests.unit.proxy_tensorrt import plan_folder
from tests.unit.proxy_tensorrt.plan_folder import HERE, PROFILE


def test_facts_come_back_as_they_were_written(tmp_path: Path) -> None:
    written = plan_folder.fill(tmp_path, version_compatible=True, comparison={"tau": 1.0})
    assert PlanFacts.load(tmp_path) == written


def test_a_missing_description_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"plan\.json is missing; build one here: scripts/build-proxy-plan"):
        PlanFacts.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.pop("machine"), "machine"),
        (lambda document: document.update(format=2), "format is 2; this version reads 1"),
        (lambda document: document.update(surprise=1), "surprise"),
        (lambda document: document["machine"].update(library="onnx"), "library is 'onnx'; expected one of tensorrt"),
        (lambda document: document["profile"].update(max_rows=0), "expected whole numbers of at least 1"),
    ],
)
def test_a_broken_description_is_named(tmp_path: Path, change: Any, message: str) -> None:
    plan_folder.fill(tmp_path)
    document = json.loads((tmp_path / FACTS_FILE).read_text())
    change(document)
    (tmp_path / FACTS_FILE).write_text(json.dumps(document))
    with pytest.raises(PlanError, match=message) as caught:
        PlanFacts.load(tmp_path)
    assert FACTS_FILE in str(caught.value)
    assert "scripts/build-proxy-plan" in str(caught.value)


def test_text_that_is_no_json_is_named(tmp_path: Path) -> None:
    (tmp_path / FACTS_FILE).write_text("{")
    with pytest.raises(PlanError, match="not a description of a plan"):
        PlanFacts.load(tmp_path)


@pytest.mark.parametrize(
    ("here", "message"),
    [
        (replace(HERE, library="tensorrt_rtx"), "library tensorrt, here is tensorrt_rtx"),
        (replace(HERE, library_version="10.14.0.1"), "library version 10.13.3.9, here is 10.14.0.1"),
        (replace(HERE, gpu="NVIDIA Other"), "gpu NVIDIA Test, here is NVIDIA Other"),
        (replace(HERE, compute_capability="8.9"), "compute capability 9.0, here is 8.9"),
    ],
)
def test_a_plan_for_something_else_is_refused(tmp_path: Path, here: Any, message: str) -> None:
    facts = plan_folder.fill(tmp_path)
    facts.check_machine(HERE)
    with pytest.raises(PlanError, match=f"{message}; build one here: scripts/build-proxy-plan"):
        facts.check_machine(here)


@pytest.mark.parametrize(
    ("version", "fits"),
    [("10.13.3.9", True), ("10.14.0.1", True), ("10.9.1.1", False), ("11.0.0.1", False), ("10.13.3.10", True)],
)
def test_a_version_compatible_plan_runs_on_later_releases_of_its_major_version(
    tmp_path: Path, version: str, fits: bool
) -> None:
    facts = plan_folder.fill(tmp_path, version_compatible=True)
    if fits:
        facts.check_machine(replace(HERE, library_version=version))
    else:
        with pytest.raises(PlanError, match="library version"):
            facts.check_machine(replace(HERE, library_version=version))


def test_a_profile_that_is_too_short_is_refused(tmp_path: Path) -> None:
    facts = plan_folder.fill(tmp_path, profile=replace(PROFILE, max_length=8))
    with pytest.raises(PlanError, match=r"at most 8 tokens, proxy\.json has max_length 12"):
        facts.check_proxy(small_proxy.metadata())


@pytest.mark.parametrize("changes", [{"proxy_max_batch_rows": 0}, {"proxy_watch_s": -1.0}])
def test_settings_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    name, value = next(iter(changes.items()))
    with pytest.raises(SettingsError, match=f"{name} is {value}; expected"):
        PlanSettings(**changes)
