"""Tuning with transformers' Trainer; runs where torch is (the `train` environment), and is skipped elsewhere."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import onnxruntime  # noqa: E402
from transformers import Trainer  # noqa: E402

from proxy_onnx.encode import ProxyEncoder  # noqa: E402
from ssjf_tools.proxy import train  # noqa: E402
from ssjf_tools.proxy.artifact import ProxyArtifact  # noqa: E402
from ssjf_tools.proxy.bins import fit_bins  # noqa: E402
from ssjf_tools.proxy.data import LabelledPrompt, Sample, flatten  # noqa: E402
from ssjf_tools.proxy.fit import FitSettings, Inputs  # noqa: E402
from ssjf_tools.proxy.graph import build_feature_graph, build_graph  # noqa: E402
from ssjf_tools.proxy.metrics import kendall_tau_b  # noqa: E402
from ssjf_tools.proxy.network import ProxyNetwork  # noqa: E402
from ssjf_tools.proxy.objectives import OBJECTIVES, Targets  # noqa: E402
from ssjf_tools.proxy.taught import TAUGHT, holdout_taught, tune_taught  # noqa: E402
from ssjf_tools.proxy.teacher import Teacher  # noqa: E402
from ssjf_tools.proxy.trainer import PAPER, TuneSettings, network_outputs  # noqa: E402
from ssjf_tools.proxy.training_set import TrainingSet  # noqa: E402
from ssjf_tools.proxy.tuning import adapter_of, frozen_states, outputs_of, tune  # noqa: E402
from tests.unit.proxy import small_proxy  # noqa: E402

SPEC, WEIGHTS = small_proxy.SPEC, small_proxy.weights()
COUNT = 120


@pytest.fixture(scope="module")
def data() -> TrainingSet:
    """Prompts that start with one of four words, which decides the length."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, COUNT)
    lengths = np.array([4, 60, 200, 400])[kinds] + rng.integers(0, 4, COUNT)
    texts = [f"w{kind} " + " ".join(f"w{word}" for word in rng.integers(8, 28, 4)) for kind in kinds]
    prompts = [
        LabelledPrompt(str(number), text, "", (Sample(int(length), False),))
        for number, (text, length) in enumerate(zip(texts, lengths, strict=True))
    ]
    labels = flatten(prompts)
    bins = fit_bins(512, 8, labels.tokens, labels.censored)
    document = {
        **small_proxy.DOCUMENT,
        "bin_edges": bins.edges.tolist(),
        "bin_means": bins.means.tolist(),
        "pooling": "",
    }
    encoder = ProxyEncoder(small_proxy.tokenizer(), small_proxy.metadata(**document))
    session = onnxruntime.InferenceSession(build_feature_graph(SPEC, WEIGHTS).SerializeToString())
    ids, mask = encoder.encode(texts)
    (features,) = session.run(None, {"input_ids": ids, "attention_mask": mask})
    return TrainingSet(prompts, labels, bins, Inputs(features), encoder, SPEC, WEIGHTS, 1, Path("own"))


def tuned_tau(data: TrainingSet, folder: Path, **changes: Any) -> tuple[float, Any]:
    settings = TuneSettings(**{"epochs": 3, "head_rate": 3e-3, "encoder_rate": 1e-3, "dropout": 0.0, **changes})
    held, rest = np.arange(20), np.arange(20, COUNT)
    tuned = tune(data, rest, settings, 0.3, folder)
    graph = build_graph(SPEC, tuned.weights, tuned.head, first_token=settings.paper_head)
    ids, mask = data.encoder.encode([data.prompts[index].text for index in held])
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (shares,) = session.run(["length_distribution"], {"input_ids": ids, "attention_mask": mask})
    assert shares.shape == (20, data.bins.count)
    assert np.abs(shares.sum(axis=1) - 1).max() < 1e-4
    return kendall_tau_b(shares @ data.bins.means, data.labels.tokens[held].astype(np.float64)), tuned


@pytest.mark.parametrize("head", train.HEADS)
def test_every_head_learns_and_is_served_as_a_distribution(data: TrainingSet, head: str, tmp_path: Path) -> None:
    tau, tuned = tuned_tau(data, tmp_path / "state", head=head)
    assert tau > 0.4  # three classes cannot tell four lengths apart
    raw = tuned.objective.order(network_outputs(tuned.network, data.rows(np.arange(20))))
    if head != "distribution":  # its outputs are one logit per bin
        assert kendall_tau_b(raw, data.labels.tokens[:20].astype(np.float64)) > 0.5


def test_the_heads_on_offer_are_those_there_are() -> None:
    assert tuple(OBJECTIVES) == train.HEADS


def test_the_papers_recipe_is_served_through_its_own_layers(data: TrainingSet, tmp_path: Path) -> None:
    settings = {
        **PAPER,
        "head_rate": 1e-2,
        "encoder_rate": 3e-3,
        "head": "multi-class",
        "epochs": 20,
        "frozen_after": 15,
    }
    tau, tuned = tuned_tau(data, tmp_path / "state", **settings)
    assert tau > 0.4
    assert len(tuned.head.hidden) == 2


def test_frozen_layers_stay_and_are_run_once(data: TrainingSet, tmp_path: Path) -> None:
    lower = frozen_states(data, 1)
    settings = TuneSettings(epochs=2, frozen_layers=1, dropout=0.0, encoder_rate=1e-3)
    tuned = tune(data, np.arange(COUNT), settings, 0.3, tmp_path / "state", lower)
    name = "encoder.layer.{}.output.dense.weight"
    assert np.array_equal(tuned.weights[name.format(0)], WEIGHTS[name.format(0)])
    assert not np.array_equal(tuned.weights[name.format(1)], WEIGHTS[name.format(1)])
    chosen = np.arange(10)
    whole = network_outputs(tuned.network, data.rows(chosen))
    assert np.abs(outputs_of(data, tuned, chosen, lower) - whole).max() < 0.05 * np.abs(whole).max()  # BF16 in between


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    step, steps = Trainer.training_step, []

    def die_late(self: Any, *arguments: Any, **given: Any) -> Any:
        steps.append(self.state.global_step)
        if len(steps) == 70:
            raise Killed
        return step(self, *arguments, **given)

    monkeypatch.setattr(Trainer, "training_step", die_late)
    settings = TuneSettings(epochs=12, batch=16)  # 7 steps each; saved every 50
    with pytest.raises(Killed):
        tune(data, np.arange(COUNT), settings, 0.3, tmp_path / "state")
    assert [file.name for file in (tmp_path / "state").iterdir()] == ["checkpoint-50"]
    steps.clear()
    tune(data, np.arange(COUNT), settings, 0.3, tmp_path / "state")
    assert (steps[0], steps[-1]) == (50, 83)


def test_the_papers_encoder_stays_as_it_is_after_three_epochs(
    data: TrainingSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, trained = Trainer.training_step, {}

    def watch(self: Any, model: Any, *arguments: Any, **given: Any) -> Any:
        trained[self.state.global_step] = any(part.requires_grad for part in model.encoder.parameters())
        return step(self, model, *arguments, **given)

    monkeypatch.setattr(Trainer, "training_step", watch)
    tune(data, np.arange(COUNT), TuneSettings(**PAPER, head="ordinal-l1"), 0.3, tmp_path / "state")
    steps = len(trained) // 6
    assert [trained[epoch * steps] for epoch in range(6)] == [True] * 3 + [False] * 3


def test_ranking_losses_are_lowest_in_the_true_order() -> None:
    targets = Targets(torch.tensor([5.0, 50.0, 500.0]), None, None)
    right, wrong = torch.tensor([[0.0], [2.0], [4.0]]), torch.tensor([[4.0], [2.0], [0.0]])
    for name in ("listmle", "pairwise"):
        loss = OBJECTIVES[name].loss
        assert loss(right, targets) < loss(wrong, targets)
    assert OBJECTIVES["pairwise"].loss(right, targets) == 0
    # Two rows: minus the log of the share of the longer one.
    two = Targets(torch.tensor([5.0, 50.0]), None, None)
    assert OBJECTIVES["listmle"].loss(torch.zeros(2, 1), two) == pytest.approx(np.log(2) / 2)


def test_classes_are_the_papers_and_weigh_one_over_their_number() -> None:
    objective = OBJECTIVES["multi-class"]
    tokens = np.array([1.0, 41, 42, 293, 503, 1000])
    assert objective.class_weights(tokens).tolist() == [0.5, 1, 1, 0, 0.5]
    assert OBJECTIVES["binary"].class_weights(tokens).tolist() == [1 / 3, 1, 0.5]


def test_an_encoder_by_path_is_tuned_saved_whole_and_loads_again(tmp_path: Path) -> None:
    folder = tmp_path / "encoder"
    network = ProxyNetwork(SPEC, WEIGHTS, 0.0, 0)
    network.encoder.save_pretrained(folder)
    small_proxy.tokenizer().save(str(folder / "tokenizer.json"))
    records = [(str(n), f"w{n % 2} w{n % 20 + 8} w{n // 20 + 8}", 300 if n % 2 else 3) for n in range(100)]
    prompts, lengths = tmp_path / "prompts", tmp_path / "lengths"
    prompts.write_text("".join(json.dumps({"id": key, "prompt": text}) + "\n" for key, text, _ in records))
    lengths.write_text(
        "".join(json.dumps({"id": key, "output_tokens": n, "finish": "stop"}) + "\n" for key, _, n in records)
    )
    files = ["--prompts", str(prompts), "--lengths", str(lengths), "--out", str(tmp_path / "out")]
    options = ["--bins", "8", "--folds", "2", "--seeds", "0", "--max-length", "12", "--head", "ordinal-mse"]
    assert train.main([*files, *options, "--encoder", str(folder)]) == 0
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {"proxy.json", "head.npz", "encoder.npz", "tokenizer.json"}  # no checkpoints
    artifact = ProxyArtifact.load(tmp_path / "out")
    (holdout,) = artifact.metadata.raw["training"]["fine_tuning"]["holdout"]
    assert holdout["tuned"]["kendall_tau_b"] > 0.3
    assert artifact.onnx_model().graph.output[0].name == "length_distribution"


def test_a_teacher_tunes_the_encoder_with_prompts_that_nobody_measured(data: TrainingSet, tmp_path: Path) -> None:
    kinds = np.array([int(prompt.text[1]) for prompt in data.prompts])
    states = np.eye(4)[kinds] + np.random.default_rng(1).normal(0, 0.05, (COUNT, 4))
    measured, others = data.prompts[:70], data.prompts[70:]
    lesson = replace(
        data,
        prompts=measured,
        labels=flatten(measured),
        others=others,
        teacher=Teacher(Inputs(states), np.arange(70, COUNT)),
    )
    settings = TuneSettings(**{**TAUGHT, "encoder_rate": 1e-3})
    figures = holdout_taught(lesson, 0.3, settings, FitSettings(), tmp_path / "holdout")
    assert figures["tuned"]["kendall_tau_b"] > 0.5
    assert figures["frozen"]["kendall_tau_b"] > 0
    assert figures["hashed_ngram_ridge"] > 0.3
    taught = tune_taught(lesson, np.arange(70), settings, FitSettings(), tmp_path / "all")
    name = "encoder.layer.1.output.dense.weight"
    assert not np.array_equal(taught.weights[name], WEIGHTS[name])
    graph = build_graph(SPEC, taught.weights, taught.head)
    ids, mask = data.encoder.encode([prompt.text for prompt in others])
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    (shares,) = session.run(["length_distribution"], {"input_ids": ids, "attention_mask": mask})
    served = replace(lesson, inputs=taught.inputs).predict(taught.head, np.arange(70, COUNT))
    assert np.abs(shares - served).max() < 1e-4
    with pytest.raises(ValueError, match="needs --states"):
        tune_taught(data, np.arange(COUNT), settings, FitSettings(), tmp_path / "none")


def test_the_adapter_of_the_packaged_encoder_is_what_tuning_changed(data: TrainingSet, tmp_path: Path) -> None:
    packaged = replace(data, folder=None)
    tuned = tune(packaged, np.arange(COUNT), TuneSettings(epochs=1, encoder_rate=1e-3), 0.3, tmp_path / "state")
    adapter = adapter_of(packaged, tuned.weights)
    assert adapter is not None
    for name, weight in adapter.apply(WEIGHTS).items():
        assert np.abs(weight - tuned.weights.get(name, weight)).max() < 1e-2
