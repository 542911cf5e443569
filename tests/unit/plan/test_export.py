"""The shipped proxy as it is exported for TensorRT: with the packaged encoder, its real size."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Predictor
from proxy_onnx.runtime import OnnxRuntime
from ssjf_tools.assets.proxy import COMMITTED
from ssjf_tools.plan.builder import default_profile
from ssjf_tools.plan.comparison import Limits, compare
from ssjf_tools.plan.export import BUNDLED_PROMPTS, export_proxy, main, read_prompts
from ssjf_tools.plan.gate import gate
from ssjf_tools.plan.reference import Reference


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    export_proxy(COMMITTED, folder, read_prompts(BUNDLED_PROMPTS))
    return folder


def test_the_typed_graph_ranks_the_bundled_prompts_as_the_full_one_does(exported: Path) -> None:
    metadata = ProxyMetadata.load(exported)
    found = compare(Predictor(OnnxRuntime(exported, 1), metadata, 64), metadata, Reference.load(exported))
    found.check(Limits())
    assert found.prompts >= 40


def test_the_bundled_prompts_fill_every_bucket(exported: Path) -> None:
    metadata, reference = ProxyMetadata.load(exported), Reference.load(exported)
    lengths = reference.mask.sum(axis=1)
    assert {metadata.bucket(int(length)) for length in lengths} == set(metadata.length_buckets)
    means = [metadata.summarize(row).mean for row in reference.expected]
    assert max(means) > 4 * min(means)  # otherwise a ranking would say little


def test_the_graph_is_one_that_tensorrt_takes(exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert {value.type.tensor_type.elem_type for value in model.graph.input} == {onnx.TensorProto.INT32}
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    one = np.ones((1, 1), np.int32)  # the smallest shape of the profile
    assert session.run(None, {"input_ids": one, "attention_mask": one})[0].sum() == pytest.approx(1, abs=1e-3)


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("tensorrt_rtx", "polygraphy")),
    reason="needs tensorrt-rtx and polygraphy (docs/proxy-tensorrt.md)",
)
def test_tensorrt_rtx_builds_the_graph_without_a_gpu(exported: Path) -> None:
    said: list[str] = []
    buckets = ProxyMetadata.load(exported).length_buckets
    gate(exported / "model.onnx", default_profile(64, buckets), ["8.9"], said.append)
    assert "built for 8.9" in said[-1]


def test_too_few_prompts_and_bad_lines_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "hello"}\n{"text": "hello"}\n')
    assert main(["--out", str(tmp_path / "out"), "--prompts", str(file)]) == 1
    assert f"{file}:2: expected a JSON object with prompt" in capsys.readouterr().err
    file.write_text('{"prompt": "hello"}\n')
    assert main(["--out", str(tmp_path / "out"), "--prompts", str(file)]) == 1
    assert "1 prompts; expected at least 24" in capsys.readouterr().err
    file.write_text('{"prompt": ""}\n')
    with pytest.raises(ValueError, match=r"jsonl:1: prompt must be a text that is not empty"):
        read_prompts(file)
    assert not (tmp_path / "out").exists()
