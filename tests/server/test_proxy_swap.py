"""A new proxy takes over on a running server; a broken one does not."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from tritonclient import grpc as triton

from ssjf_tools.assets import ensure_assets
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve.throwaway import throwaway_server

pytestmark = pytest.mark.server


def ask(client: Any) -> int:
    """The most probable bin for one short row."""
    rows: dict[str, NDArray[np.int32]] = {
        "input_ids": np.array([[101, 2054, 2003, 102]], np.int32),
        "attention_mask": np.ones((1, 4), np.int32),
    }
    inputs = []
    for name, values in rows.items():
        tensor = triton.InferInput(name, list(values.shape), "INT32")
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    answer = client.infer("length_predictor", inputs).as_numpy("length_distribution")
    return int(answer[0].argmax())


def put_last_bin_first(folder: Path) -> int:
    """Replace the model by one that always expects the longest answers; returns that bin."""
    model = onnx.load(folder / "model.onnx")
    for tensor in model.graph.initializer:
        if tensor.name == "head/expand/bias":
            value = numpy_helper.to_array(tensor).copy()
            value[-1] += 50
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    onnx.save(model, folder / "draft")
    (folder / "draft").replace(folder / "model.onnx")
    return len(value) - 1


def eventually(condition: Any) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.1)
    return False


def test_a_new_proxy_takes_over_and_a_broken_one_does_not(tmp_path: Path) -> None:
    assets = CHECKOUT / ".assets"
    ensure_assets(assets, print, ["proxy"])
    folder = tmp_path / "proxy"
    shutil.copytree(assets / "proxy", folder)
    with throwaway_server({"SSJF_PROXY_DIR": str(folder), "SSJF_PROXY_WATCH_S": "0.2"}) as server:
        client = triton.InferenceServerClient(server.grpc_url)
        before = ask(client)
        wanted = put_last_bin_first(folder)
        assert before != wanted
        assert eventually(lambda: ask(client) == wanted)
        (folder / "model.onnx").write_bytes(b"no model")
        refused = "a new proxy was found and refused, the old one stays in use"
        assert eventually(lambda: refused in server.log.read_text())
        document = json.loads((folder / "proxy.json").read_text())
        document["bin_edges"][-1] += 1
        (folder / "proxy.json").write_text(json.dumps(document))
        assert eventually(lambda: "bin_edges is" in server.log.read_text())
        assert ask(client) == wanted
        client.close()
