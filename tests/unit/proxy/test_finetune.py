"""Fine-tuning on the packaged encoder; runs where torch is (the `train` environment), and is skipped elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from ssjf_tools.proxy import finetune, train  # noqa: E402
from ssjf_tools.proxy.artifact import ProxyArtifact  # noqa: E402
from ssjf_tools.proxy.encoder import load_encoder, package_dir  # noqa: E402
from ssjf_tools.proxy.graph import feature_count  # noqa: E402
from tests.unit.proxy import small_proxy  # noqa: E402

SPEC, WEIGHTS = load_encoder(package_dir(), layers=1)
HEAD = small_proxy.head(bins=4, spec=SPEC)
RNG = np.random.default_rng(0)
ROWS = [np.array([101, *RNG.integers(1000, 2000, RNG.integers(1, 9)), 102], np.int32) for _ in range(40)]
DATA = finetune.TuneData(ROWS, np.eye(4)[RNG.integers(0, 4, 40)])
FEATURES = RNG.normal(size=(40, feature_count(SPEC))).astype(np.float32)


def tune(checkpoint: Path, epochs: int, **changes: Any) -> tuple[Any, Any]:
    settings = finetune.TuneSettings(epochs=epochs, dropout=0.0, **changes)
    return finetune.fine_tune(DATA, FEATURES, SPEC, WEIGHTS, HEAD, settings, checkpoint, lambda _text: None)


def test_without_an_epoch_everything_stays_as_it_was(tmp_path: Path) -> None:
    weights, head = tune(tmp_path / "state", epochs=0)
    assert np.abs(head.reduce_weight - HEAD.reduce_weight).max() < 1e-5
    assert np.abs(head.reduce_bias - HEAD.reduce_bias).max() < 1e-3
    name = "encoder.layer.0.output.dense.weight"
    assert np.array_equal(weights[name], WEIGHTS[name])


def test_training_lowers_the_loss_and_leaves_word_embeddings_alone(tmp_path: Path) -> None:
    said: list[str] = []
    settings = finetune.TuneSettings(epochs=4, dropout=0.0)
    weights, head = finetune.fine_tune(DATA, FEATURES, SPEC, WEIGHTS, HEAD, settings, tmp_path / "state", said.append)
    losses = [float(text.split("loss ")[1].split(",")[0]) for text in said]
    assert losses[-1] < losses[0]
    assert np.array_equal(weights["embeddings.word_embeddings.weight"], WEIGHTS["embeddings.word_embeddings.weight"])
    assert not np.array_equal(
        weights["encoder.layer.0.output.dense.weight"], WEIGHTS["encoder.layer.0.output.dense.weight"]
    )
    assert not np.array_equal(head.expand_weight, HEAD.expand_weight)
    assert not (tmp_path / "state").exists()


def test_a_killed_run_goes_on_to_the_same_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, whole_head = tune(tmp_path / "whole", epochs=2)
    epoch = finetune._epoch

    def die_in_the_second(*arguments: Any) -> float:
        if arguments[-1] == 1:
            raise KeyboardInterrupt
        return epoch(*arguments)

    monkeypatch.setattr(finetune, "_epoch", die_in_the_second)
    with pytest.raises(KeyboardInterrupt):
        tune(tmp_path / "state", epochs=2)
    monkeypatch.setattr(finetune, "_epoch", epoch)
    resumed, resumed_head = tune(tmp_path / "state", epochs=2)
    name = "encoder.layer.0.output.dense.weight"
    assert np.abs(resumed[name] - whole[name]).max() < 1e-6
    assert np.abs(resumed_head.expand_weight - whole_head.expand_weight).max() < 1e-6


def test_the_command_tunes_and_saves_what_serving_loads(tmp_path: Path) -> None:
    prompts, lengths = tmp_path / "prompts", tmp_path / "lengths"
    kinds = [("Say yes: {}.", 3), ("Write a long essay about {}.", 300)]
    records = [(str(n), kinds[n % 2][0].format(n), kinds[n % 2][1] + n) for n in range(60)]
    prompts.write_text("".join(json.dumps({"id": key, "prompt": text}) + "\n" for key, text, _ in records))
    lengths.write_text(
        "".join(json.dumps({"id": key, "output_tokens": n, "finish": "stop"}) + "\n" for key, _, n in records)
    )
    files = ["--prompts", str(prompts), "--lengths", str(lengths), "--out", str(tmp_path / "out")]
    assert train.main([*files, "--bins", "8", "--folds", "2", "--seeds", "0", "--epochs", "1"]) == 0
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"proxy.json", "head.npz", "adapter.npz"}
    artifact = ProxyArtifact.load(tmp_path / "out")
    (holdout,) = artifact.metadata.raw["training"]["fine_tuning"]["holdout"]
    assert holdout["tuned"]["kendall_tau_b"] > 0.3
    assert artifact.onnx_model().graph.output[0].name == "length_distribution"
