"""The torch proxy that a plan is measured against computes what the graph computes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

torch = pytest.importorskip("torch")

from ssjf_tools.plan.torch_baseline import TorchProxy  # noqa: E402
from ssjf_tools.proxy.grams import PAIR_PLACES  # noqa: E402
from ssjf_tools.proxy.graph import build_graph  # noqa: E402
from tests.unit.proxy import small_proxy  # noqa: E402
from tests.unit.proxy.small_proxy import SPEC  # noqa: E402

IDS = np.array([[2, 9, 7, 9, 7, 3], [2, 30, 3, 0, 0, 0], [2, 5, 5, 5, 8, 3]], np.int32)
MASK = (IDS != 0).astype(np.int32)
GRAMS = np.random.default_rng(3).normal(0, 0.5, (SPEC.vocabulary + PAIR_PLACES, 3)).astype(np.float32)


@pytest.mark.parametrize("grams", [False, True])
def test_it_agrees_with_onnx_runtime(tmp_path: Path, grams: bool) -> None:
    head = replace(small_proxy.head(), grams=GRAMS) if grams else small_proxy.head()
    model = build_graph(SPEC, small_proxy.weights(), head)
    onnx.save(model, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"input_ids": IDS, "attention_mask": MASK})
    found = TorchProxy(tmp_path / "model.onnx", "cpu", torch.float32).run(IDS, MASK)
    assert np.abs(found - expected).max() < 1e-5


def test_a_head_with_hidden_layers_is_refused(tmp_path: Path) -> None:
    eye = np.eye(small_proxy.head().features, dtype=np.float32)
    head = replace(small_proxy.head(), hidden=((eye, eye[0]),))
    onnx.save(build_graph(SPEC, small_proxy.weights(), head), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="hidden layers"):
        TorchProxy(tmp_path / "model.onnx", "cpu", torch.float32)
