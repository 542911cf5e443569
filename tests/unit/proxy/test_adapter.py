from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from proxy_onnx.metadata import ProxyMetadata
from ssjf_tools.proxy.adapter import Adapter, AdapterError
from ssjf_tools.proxy.artifact import ADAPTER_FILE, ProxyArtifact, weight_files
from ssjf_tools.proxy.encoder import Weights
from tests.unit.proxy import small_proxy

BASE = small_proxy.weights()
QUERY = "encoder.layer.0.attention.self.query.weight"
BIAS = "encoder.layer.0.attention.self.query.bias"


def tuned(rank: int) -> Weights:
    """BASE with a change of this rank in one matrix and some change in one vector."""
    rng = np.random.default_rng(3)
    change = (rng.normal(size=(8, rank)) @ rng.normal(size=(rank, 8))).astype(np.float32)
    return {**BASE, QUERY: BASE[QUERY] + change * 0.01, BIAS: BASE[BIAS] + np.float32(0.25)}


def test_a_change_of_low_rank_comes_back_and_the_rest_is_shared() -> None:
    target = tuned(rank=2)
    adapter = Adapter.between(BASE, target, rank=2)
    assert set(adapter.arrays) == {QUERY + ":left", QUERY + ":right", BIAS + ":whole"}
    restored = adapter.apply(BASE)
    assert np.abs(restored[QUERY] - target[QUERY]).max() < 1e-4
    assert restored[BIAS].tolist() == pytest.approx(target[BIAS].tolist())
    untouched = "encoder.layer.1.output.dense.weight"
    assert restored[untouched] is BASE[untouched]
    assert BASE[BIAS] is not restored[BIAS]


def test_a_change_of_higher_rank_is_cut_to_its_best_part() -> None:
    target = tuned(rank=6)
    change = target[QUERY] - BASE[QUERY]
    errors = [
        float(np.linalg.norm(Adapter.between(BASE, target, rank).apply(BASE)[QUERY] - target[QUERY]))
        for rank in (1, 3, 7)
    ]
    assert errors[0] > errors[1] > errors[2]
    sizes = np.linalg.svd(change, compute_uv=False)
    assert errors[1] == pytest.approx(float(np.sqrt((sizes[3:] ** 2).sum())), rel=0.01)


def test_saving_and_loading(tmp_path: Path) -> None:
    adapter = Adapter.between(BASE, tuned(rank=2), rank=2)
    adapter.save(tmp_path / "a.npz")
    restored = Adapter.load(tmp_path / "a.npz").apply(BASE)
    assert np.array_equal(restored[QUERY], adapter.apply(BASE)[QUERY])
    (tmp_path / "a.npz").write_bytes(b"broken")
    with pytest.raises(AdapterError, match=r"a\.npz"):
        Adapter.load(tmp_path / "a.npz")
    with pytest.raises(AdapterError, match=r"absent\.npz"):
        Adapter.load(tmp_path / "absent.npz")


def test_an_adapter_of_another_encoder_is_refused() -> None:
    half = np.zeros((3, 3), np.float16)
    with pytest.raises(AdapterError, match=r"adapter changes other of shape \[3, 3\]"):
        Adapter({"other:whole": half}).apply(BASE)
    with pytest.raises(AdapterError, match=r"has other:left without other:right"):
        Adapter({"other:left": half}).apply(BASE)


def test_a_tuned_proxy_is_saved_with_its_adapter_and_needs_it(tmp_path: Path) -> None:
    document = {**small_proxy.DOCUMENT, "encoder": {"frozen": False}}
    adapter = Adapter.between(BASE, tuned(rank=2), rank=2)
    ProxyArtifact(ProxyMetadata.from_document(document), small_proxy.head(), adapter).save(tmp_path)
    assert [file.name for file in weight_files(tmp_path)] == ["proxy.json", "head.npz", "adapter.npz"]
    loaded = ProxyArtifact.load(tmp_path)
    assert loaded.adapter is not None
    assert set(loaded.adapter.arrays) == set(adapter.arrays)
    (tmp_path / ADAPTER_FILE).unlink()
    with pytest.raises(AdapterError, match=r"adapter\.npz"):
        ProxyArtifact.load(tmp_path)
