"""The committed weights on the packaged encoder, against values that torch gave for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from proxy_onnx.encode import ProxyEncoder
from proxy_onnx.metadata import ProxyMetadata
from proxy_onnx.predict import Predictor
from proxy_onnx.runtime import OnnxRuntime
from ssjf_tools.assets.proxy import COMMITTED, build_proxy
from ssjf_tools.proxy.artifact import ProxyArtifact
from ssjf_tools.proxy.encoder import EncoderError
from ssjf_tools.proxy.head import HeadError

GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text(encoding="utf-8"))["prompts"]
TEXTS = [entry["text"] for entry in GOLDEN]
EXPECTED = np.array([entry["distribution"] for entry in GOLDEN])


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("assets") / "proxy"
    build_proxy(target, lambda _text: None)
    return target


def test_the_fp32_graph_agrees_with_torch(built: Path) -> None:
    model = ProxyArtifact.load(COMMITTED).onnx_model().SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    encoder = ProxyEncoder.from_dir(built)
    for entry, expected in zip(GOLDEN, EXPECTED, strict=True):
        ids, mask = encoder.encode([entry["text"]])
        assert int(mask.sum()) == entry["tokens"]
        (output,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
        assert np.abs(output[0] - expected).max() < 1e-4


def test_the_served_model_predicts_the_same_lengths_within_a_tenth(built: Path) -> None:
    metadata = ProxyMetadata.load(built)
    encoder = ProxyEncoder.from_dir(built)
    predictor = Predictor(OnnxRuntime(built, threads=1), metadata, most_rows=None)
    answers: list[Any] = predictor.predict([encoder.encode([text]) for text in TEXTS])
    served = [metadata.summarize(answer[0]).mean for answer in answers]
    expected = [metadata.summarize(row / row.sum()).mean for row in EXPECTED]
    assert served == pytest.approx(expected, rel=0.1)
    assert np.argsort(served).tolist() == np.argsort(expected).tolist()
    assert served[0] < served[2] < served[1]  # one word, a label, an essay


def test_the_asset_folder_is_complete_and_built_once(built: Path) -> None:
    assert {file.name for file in built.iterdir()} == {"model.onnx", "tokenizer.json", "proxy.json", "asset.json"}
    before = (built / "model.onnx").stat().st_mtime_ns
    said: list[str] = []
    build_proxy(built, said.append)
    assert said == []
    assert (built / "model.onnx").stat().st_mtime_ns == before


def test_other_weights_are_built_on_request_and_broken_ones_leave_the_old_model(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSJF_PROXY_WEIGHTS", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"proxy\.json is missing"):
        build_proxy(built, lambda _text: None)
    ProxyArtifact.load(COMMITTED).save(tmp_path)
    (tmp_path / "head.npz").write_bytes(b"broken")
    with pytest.raises(HeadError, match=r"head\.npz"):
        build_proxy(built, lambda _text: None)
    assert ProxyMetadata.load(built).bins == EXPECTED.shape[1]
    assert sorted(file.name for file in built.parent.iterdir()) == [".proxy.lock", "proxy"]


def test_weights_trained_on_another_encoder_are_refused() -> None:
    artifact = ProxyArtifact.load(COMMITTED)
    other = {**artifact.metadata.raw, "encoder": {"weights": "another 1.0", "layers": 4}}
    with pytest.raises(EncoderError, match=r"this proxy was trained on another 1\.0"):
        ProxyArtifact(ProxyMetadata.from_document(other), artifact.head).onnx_model()


def test_the_committed_files_are_small_and_say_how_they_came_about() -> None:
    assert sum(file.stat().st_size for file in COMMITTED.iterdir()) < 3_000_000
    training = ProxyArtifact.load(COMMITTED).metadata.raw["training"]
    assert training["data"]["prompts"] > 1000
    assert training["cross_validation"]["kendall_tau_b"] > 0.5
    holdout = training["fine_tuning"]["holdout"]
    assert len({run["seed"] for run in holdout}) >= 3
    assert all(run["tuned"]["kendall_tau_b"] > run["hashed_ngram_ridge"] + 0.05 for run in holdout)
