"""Building, comparing and installing with a fake TensorRT; what is refused leaves the folder as it was."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from proxy_onnx.errors import PlanError
from proxy_tensorrt.cuda import Cuda
from proxy_tensorrt.loading import load_proxy
from proxy_tensorrt.plan import PLAN_FILE, PlanFacts, Profile
from ssjf_tools.plan.__main__ import main, run
from ssjf_tools.plan.builder import Recipe, build_plan, default_profile
from ssjf_tools.plan.comparison import Comparison, Limits
from ssjf_tools.plan.options import CONFIG, max_batch_size, parse
from ssjf_tools.plan.reference import Reference
from tests.unit.proxy import small_proxy
from tests.unit.proxy_tensorrt import fake_gpu
from tests.unit.proxy_tensorrt.fake_gpu import FakeCudart, FakeTrt

PROFILE = Profile(opt_rows=8, opt_length=8, max_rows=64, max_length=12)


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An export of the small proxy; ONNX Runtime's answers are those of a fake plan without faults."""
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "proxy.json").write_text(json.dumps(small_proxy.DOCUMENT))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.onnx").write_bytes(b"graph")
    ids = np.ones((8, 6), np.int32)
    ids[:, 0] = np.arange(8)
    Reference(ids, np.ones_like(ids), np.eye(4, dtype=np.float32)[np.arange(8) % 4]).save(folder)
    return folder


def build(exported: Path, into: Path, plan: bytes | None, *arguments: str, cudart: FakeCudart | None = None) -> FakeTrt:
    trt, device = FakeTrt(built=plan), cudart or FakeCudart()
    options = parse(["--exported", str(exported), "--into", str(into), *arguments])
    run(options, exported, lambda _name: trt, lambda number: Cuda(number, device))
    assert device.memory == {}
    return trt


def test_a_good_plan_is_installed_with_what_it_belongs_to(exported: Path, tmp_path: Path) -> None:
    build(exported, tmp_path / "proxy", fake_gpu.plan())
    facts = PlanFacts.load(tmp_path / "proxy")
    assert (facts.machine.gpu, facts.machine.compute_capability) == ("NVIDIA Test", "9.0")
    assert facts.profile == PROFILE
    assert facts.comparison["tau"] == 1
    loaded = load_proxy(tmp_path / "proxy", 64, lambda: Cuda(0, FakeCudart()), lambda _name: FakeTrt())
    loaded.close()
    assert sorted(file.name for file in (tmp_path / "proxy").iterdir()) == [
        "model.plan", "plan.json", "proxy.json", "tokenizer.json"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (fake_gpu.plan(shift=1), "ranks 8 prompts otherwise than ONNX Runtime: Kendall tau_b"),
        (fake_gpu.plan(nan=True), "sums to nan"),
        (fake_gpu.plan(bins=5), "the plan's tensors are"),
        (None, "cannot build the plan"),
    ],
)
def test_a_plan_that_ranks_otherwise_is_not_installed(
    exported: Path, tmp_path: Path, plan: bytes | None, message: str
) -> None:
    into = tmp_path / "proxy"
    build(exported, into, fake_gpu.plan())
    before = {file.name: file.read_bytes() for file in into.iterdir()}
    cudart = FakeCudart()
    with pytest.raises((PlanError, ValueError), match=message):
        build(exported, into, plan, cudart=cudart)
    assert {file.name: file.read_bytes() for file in into.iterdir()} == before


def test_a_second_installation_leaves_what_is_the_same_alone(exported: Path, tmp_path: Path) -> None:
    into = tmp_path / "proxy"
    build(exported, into, fake_gpu.plan())
    age = (into / "tokenizer.json").stat()
    build(exported, into, fake_gpu.plan(again=True))
    assert (into / "tokenizer.json").stat().st_ino == age.st_ino
    assert b"again" in (into / PLAN_FILE).read_bytes()


def test_the_network_is_strongly_typed_and_the_profile_covers_all_batches(exported: Path, tmp_path: Path) -> None:
    trt = build(exported, tmp_path / "proxy", fake_gpu.plan(), "--version-compatible")
    assert trt.flags == ["network 2", "version compatible"]
    assert trt.profile == dict.fromkeys(("input_ids", "attention_mask"), ((1, 1), (8, 8), (64, 12)))
    assert PlanFacts.load(tmp_path / "proxy").version_compatible


def test_what_the_parser_says_is_passed_on() -> None:
    with pytest.raises(PlanError, match="cannot parse the graph: no such op"):
        build_plan(FakeTrt(), b"bad graph", Recipe(PROFILE))


def test_a_target_that_the_library_does_not_know_is_named() -> None:
    with pytest.raises(PlanError, match=r"tensorrt cannot build for compute capability 9\.9"):
        build_plan(FakeTrt(), b"graph", Recipe(PROFILE, target="9.9"))


def test_the_profile_follows_the_models_configuration() -> None:
    assert default_profile(max_batch_size(CONFIG), (16, 32, 64, 128)) == Profile(8, 64, 64, 128)
    assert default_profile(1, (16,)) == Profile(1, 16, 1, 16)


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        (Comparison(9, 0.9, 0.0, 0.0), "tau_b 0.9000, expected at least 0.99"),
        (Comparison(9, float("nan"), 0.0, 0.0), "tau_b nan"),
        (Comparison(9, 1.0, 0.2, 9.0), "a probability differs by 0.2000"),
        (Comparison(9, 1.0, float("nan"), 9.0), "a probability differs by nan"),
    ],
)
def test_limits(comparison: Comparison, message: str) -> None:
    Comparison(9, 0.999, 0.009, 1.0).check(Limits())
    with pytest.raises(PlanError, match=message):
        comparison.check(Limits())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-batch", "0"], "--max-batch is 0; expected from 1 to 1024"),
        (["--lowest-tau", "2"], "lowest tau is 2.0; expected from -1 to 1"),
        (["--exported", "x", "--prompts", "y"], "--exported has its prompts already"),
    ],
)
def test_wrong_arguments_are_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(arguments)
    assert message in capsys.readouterr().err


def test_the_command_says_what_is_missing_and_that_nothing_was_installed(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["--exported", str(exported), "--into", str(tmp_path / "proxy")]) == 1
    said = capsys.readouterr().err
    assert "needs the Python package tensorrt" in said
    assert "Nothing was installed." in said
    assert main(["--exported", str(tmp_path), "--into", str(tmp_path / "proxy")]) == 1
    assert "proxy.json" in capsys.readouterr().err
    assert not (tmp_path / "proxy").exists()


def test_an_export_without_answers_says_how_to_make_them(exported: Path, tmp_path: Path) -> None:
    (exported / "reference.npz").unlink()
    with pytest.raises(ValueError, match=r"reference\.npz: cannot be read .*--export-only"):
        build(exported, tmp_path / "proxy", fake_gpu.plan())
    assert not (tmp_path / "proxy").exists()
