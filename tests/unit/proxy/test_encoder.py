from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssjf_tools.proxy.encoder import EncoderError, EncoderSpec, load_encoder, read_safetensors

CONFIG = {
    "model_type": "bert",
    "hidden_act": "gelu",
    "num_hidden_layers": 2,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "vocab_size": 32,
    "layer_norm_eps": 1e-12,
}


def write_safetensors(file: Path, tensors: dict[str, Any]) -> None:
    names = {"float32": "F32", "float16": "F16", "int64": "I64", "uint16": "BF16"}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, value in tensors.items():
        span = [len(data), len(data) + value.nbytes]
        header[name] = {"dtype": names[value.dtype.name], "shape": list(value.shape), "data_offsets": span}
        data += value.tobytes()
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_floating_tensors_come_back_as_fp32(tmp_path: Path) -> None:
    whole = np.arange(6, dtype=np.float32).reshape(2, 3)
    half = np.array([0.5, -2], np.float16)
    upper = (np.array([1.5, -0.25], np.float32).view(np.uint32) >> 16).astype(np.uint16)
    write_safetensors(tmp_path / "x", {"a": whole, "ids": np.arange(4), "b": half, "c": upper})
    weights = read_safetensors(tmp_path / "x")
    assert sorted(weights) == ["a", "b", "c"]
    assert weights["c"].tolist() == [1.5, -0.25]
    assert weights["a"].tolist() == whole.tolist()
    assert weights["b"].dtype == np.float32
    assert weights["b"].tolist() == [0.5, -2]


def test_a_cut_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x"
    write_safetensors(file, {"a": np.zeros(4, np.float32)})
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(EncoderError, match="a ends at byte 16, the file's data at 15"):
        read_safetensors(file)
    file.write_bytes(b"\x01")
    with pytest.raises(EncoderError, match="not a safetensors file"):
        read_safetensors(file)


def test_an_encoder_can_be_cut_to_fewer_layers(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    write_safetensors(tmp_path / "model.safetensors", {"bert.embeddings.x": np.ones(2, np.float32)})
    spec, weights = load_encoder(tmp_path, layers=1)
    assert spec.layers == 1
    assert list(weights) == ["embeddings.x"]
    for layers in (0, 3):
        with pytest.raises(EncoderError, match=f"layers is {layers}; expected from 1 to the encoder's 2"):
            load_encoder(tmp_path, layers=layers)


@pytest.mark.parametrize("changes", [{"model_type": "deberta-v2"}, {"hidden_act": "gelu_new"}])
def test_another_architecture_is_refused(changes: dict[str, str]) -> None:
    with pytest.raises(EncoderError, match=r"expected one of bert, electra, .* and 'gelu'"):
        EncoderSpec.from_config({**CONFIG, **changes})
