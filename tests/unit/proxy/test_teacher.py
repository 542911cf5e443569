from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from proxy_onnx.metadata import ProxyMetadata
from ssjf_tools.proxy import train
from ssjf_tools.proxy.bins import LengthBins
from ssjf_tools.proxy.ceiling import ceiling_scores
from ssjf_tools.proxy.data import DataError, FlatLabels, LabelledPrompt, Sample
from ssjf_tools.proxy.fit import FitSettings, Inputs
from ssjf_tools.proxy.grams import PAIR_PLACES, gram_places, gram_rows
from ssjf_tools.proxy.metrics import kendall_tau_b
from ssjf_tools.proxy.teacher import Teacher, load_states, states_of

BINS = LengthBins(np.array([1.0, 8, 64, 512, 2048]), np.array([4.0, 30, 200, 1024]))


def test_grams_are_tokens_and_pairs_weighed_by_the_logarithm_of_their_number() -> None:
    rows = gram_rows([np.array([2, 7, 7, 3], np.int32), np.array([2, 3], np.int32)], vocabulary=10)
    assert gram_places(np.array([2, 7, 7, 3], np.int32), 10).tolist() == [
        *[2, 7, 7, 3],
        *[10 + (31 * a + 7919 * b) % PAIR_PLACES for a, b in ((2, 7), (7, 7), (7, 3))],
    ]
    first = rows.value[rows.row == 0]
    assert np.linalg.norm(first) == pytest.approx(1)
    assert first.max() / first.min() == pytest.approx(np.log(3) / np.log(2))
    dense = np.zeros((2, rows.width))
    dense[rows.row, rows.place] = rows.value
    assert np.abs(rows.kernel() - dense @ dense.T).max() < 1e-6
    weights = np.array([[1.0, 2.0], [3.0, 4.0]])
    assert np.abs(rows.table(np.arange(2), weights) - dense.T @ weights).max() < 1e-6
    assert np.abs(rows.sums(dense.T) - dense @ dense.T).max() < 1e-6


def test_a_teacher_never_repeats_a_prompts_own_answer_and_knows_the_others() -> None:
    rng = np.random.default_rng(0)
    states = rng.normal(size=(300, 24))
    lengths = np.exp(3 + states[:, 0] + rng.normal(0, 0.3, 300)).clip(1, 511).astype(np.int64)
    chosen, others = np.arange(200), np.arange(200, 300)
    noise = Inputs(rng.normal(size=(300, 12)))
    labels = FlatLabels(np.arange(200), lengths[:200], np.zeros(200, np.bool_))
    teacher = Teacher(Inputs(states), others)
    lesson = teacher.teach(noise, chosen, labels, BINS, FitSettings())
    assert kendall_tau_b(lesson.others[:, 0], lengths[200:].astype(float)) > 0.6
    wrong = lengths[:200].copy()
    wrong[5] = 511 if wrong[5] < 100 else 1
    changed = teacher.teach(noise, chosen, FlatLabels(np.arange(200), wrong, labels.censored), BINS, FitSettings())
    # Means of the views move by a hair; what is said about prompt 5 itself does not follow its answer.
    assert abs(changed.chosen[5, 0] - lesson.chosen[5, 0]) < 0.05 * abs(np.log(wrong[5] / lengths[5]))


def test_states_are_checked_by_file(tmp_path: Path) -> None:
    file = tmp_path / "states.npz"
    np.savez(file, ids=np.array(["a", "b"]), states=np.ones((2, 4), np.float16))
    known = load_states(file)
    assert states_of(["b", "a"], known, file).shape == (2, 4)
    with pytest.raises(DataError, match=r"states\.npz: no hidden states for 1 labelled prompts, the first is 'c'"):
        states_of(["a", "c"], known, file)
    np.savez(file, ids=np.array(["a"]), states=np.ones((2, 4), np.float16))
    with pytest.raises(DataError, match="1 ids and 2 states"):
        load_states(file)
    file.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"states\.npz: not a file of hidden states"):
        load_states(file)


def test_the_command_learns_from_prompts_that_nobody_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ids = [str(number) for number in range(90)]
    kinds = rng.integers(0, 2, 90)
    states = np.where(kinds[:, None] == 1, 1.0, -1.0) + rng.normal(0, 0.1, (90, 16))
    np.savez(tmp_path / "states.npz", ids=np.array(ids), states=states.astype(np.float16))

    def write(name: str, records: list[dict[str, Any]]) -> str:
        (tmp_path / name).write_text("".join(json.dumps(record) + "\n" for record in records))
        return str(tmp_path / name)

    texts = [
        f"{'Write an essay about' if kind else 'Yes or no:'} number {key}" for key, kind in zip(ids, kinds, strict=True)
    ]
    prompts = write("prompts", [{"id": key, "prompt": text} for key, text in zip(ids, texts, strict=True)])
    measured = [{"id": key, "output_tokens": 300 if kinds[int(key)] else 3, "finish": "stop"} for key in ids[:60]]
    arguments = ["--prompts", prompts, "--lengths", write("lengths", measured), "--out", str(tmp_path / "out")]
    options = ["--bins", "8", "--folds", "2", "--seeds", "0", "--states", str(tmp_path / "states.npz")]
    assert train.main([*arguments, *options]) == 0
    training = ProxyMetadata.load(tmp_path / "out").raw["training"]
    assert training["taught_prompts"] == 30
    assert training["cross_validation"]["pairwise_accuracy"] > 0.95


def test_the_ceiling_is_told_for_each_file_that_has_enough_prompts() -> None:
    rng = np.random.default_rng(3)
    first = np.exp(rng.normal(4, 1.2, 150)).clip(1, 511).astype(int)
    # Those of one file agree wholly, those of the second by chance, of the third there are too few.
    second = np.where(np.arange(150) < 60, first, rng.permutation(first))
    files = ["same"] * 60 + ["chance"] * 60 + ["few"] * 30
    prompts = [
        LabelledPrompt(str(n), "x", "", (Sample(int(a), False), Sample(int(b), False)), group=file)
        for n, (a, b, file) in enumerate(zip(first, second, files, strict=True))
    ]
    figures = ceiling_scores(np.eye(4)[BINS.index(first, np.zeros(150, np.bool_))], prompts, BINS)
    assert figures["ceiling_tau_b_same"] == 1
    assert abs(figures["ceiling_tau_b_chance"]) < 0.3
    assert "ceiling_tau_b_few" not in figures


def test_the_ceiling_is_what_a_second_answer_says(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    lengths = np.exp(rng.normal(4, 1.2, (120, 2))).clip(1, 511).astype(int)
    lengths[:, 1] = np.where(rng.random(120) < 0.5, lengths[:, 0], lengths[:, 1])
    prompts = [
        LabelledPrompt(str(n), "x", "", tuple(Sample(int(t), False) for t in row)) for n, row in enumerate(lengths)
    ]
    place = BINS.index(lengths[:, 0], np.zeros(120, np.bool_))
    figures = ceiling_scores(np.eye(4)[place], prompts, BINS)
    assert figures["ceiling_prompts"] == 120
    assert figures["ceiling_tau_b"] == pytest.approx(
        kendall_tau_b(lengths[:, 0].astype(float), lengths[:, 1].astype(float)), abs=1e-4
    )
    assert figures["ceiling_share"] == pytest.approx(
        figures["ceiling_kendall_tau_b"] / figures["ceiling_tau_b"], abs=1e-3
    )
    assert 0 < figures["second_sample_share_c1"] < 1
    assert figures["ceiling_share_low"] < figures["ceiling_share"] < figures["ceiling_share_high"]
    assert not [name for name in figures if name.startswith("ceiling_tau_b_")]
    assert ceiling_scores(np.eye(4)[place][:40], prompts[:40], BINS) == {}
