from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from openvino_llm.errors import EngineStartError
from openvino_llm.settings import EngineSettings, ModelFacts, SamplingDefaults


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("precision", "int8"),
        ("max_num_seqs", 0),
        ("num_kv_blocks", 1),
        ("max_batched_tokens", 8),  # fewer than the 16 slots
        ("inference_threads", -1),
        ("cancel_poll_ms", 0),
        ("start_timeout_s", float("nan")),
    ],
)
def test_a_bad_setting_is_named(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{key} is "):
        EngineSettings(**{key: value})


@pytest.mark.parametrize("key", ["default_temperature", "default_top_p", "default_repetition_penalty", "default_top_k"])
def test_bad_sampling_defaults_are_named(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is -1"):
        SamplingDefaults(**{key: -1})


def test_facts_come_from_the_assets(tmp_path: Path) -> None:
    facts = {"weights": "w.gguf", "vocab_size": 9, "context_length": 8192, "eos_token_ids": [2, 0]}
    (tmp_path / "asset.json").write_text(json.dumps(facts))
    (tmp_path / "w.gguf").touch()
    found = ModelFacts.read(tmp_path)
    assert found == ModelFacts(tmp_path / "w.gguf", 9, 8192, (2, 0))
    assert found.longest_sequence(EngineSettings(num_kv_blocks=10)) == 320
    assert found.longest_sequence(EngineSettings(num_kv_blocks=1024)) == 8192


def test_missing_assets_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(EngineStartError, match=r"ssjf_tools\.assets"):
        ModelFacts.read(tmp_path)
    (tmp_path / "asset.json").write_text('{"weights": "w", "vocab_size": 9, "context_length": 9, "eos_token_ids": []}')
    with pytest.raises(EngineStartError, match="does not exist"):
        ModelFacts.read(tmp_path)
