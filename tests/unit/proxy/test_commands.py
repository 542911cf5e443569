from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from proxy_onnx.metadata import ProxyMetadata
from ssjf_tools.proxy import evaluate, train
from ssjf_tools.proxy.baselines import baseline_taus, hashed_ngrams
from ssjf_tools.proxy.data import LabelledPrompt, Sample, load_labelled
from ssjf_tools.proxy.latency import REPEATS, WARM_UP, latency_ms
from ssjf_tools.proxy.preparing import usual_cap
from ssjf_tools.proxy.scheduling import oracle_shares

TOPICS = ["rivers", "Rome", "trees", "music", "cooking", "chess", "the moon", "trains", "paint", "whales"]
KINDS = [
    ("Say yes or no: do you know {}?", 3),
    ("Describe {} in one sentence.", 30),
    ("Write a long essay about {}.", 400),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """90 prompts of three kinds whose lengths differ by kind; every tenth essay is cut at 512."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    prompts: list[dict[str, object]] = []
    lengths: list[dict[str, object]] = []
    for number in range(90):
        text, middle = KINDS[number % 3]
        tokens = max(1, round(middle * float(np.exp(rng.normal(0, 0.2)))))
        prompts.append({"id": str(number), "prompt": text.format(TOPICS[number // 9]) + f" ({number})"})
        cut = number % 30 == 29
        finish = "length" if cut else "stop"
        lengths.append({"id": str(number), "output_tokens": 512 if cut else min(tokens, 511), "finish": finish})
    files = folder / "prompts.jsonl", folder / "lengths.jsonl"
    for file, records in zip(files, (prompts, lengths), strict=True):
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return files


@pytest.fixture(scope="module")
def trained(data: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("proxy")
    options = ["--bins", "10", "--folds", "3", "--seeds", "0", "--note", "test"]
    assert train.main(["--prompts", str(data[0]), "--lengths", str(data[1]), "--out", str(out), *options]) == 0
    return out


def test_training_writes_a_proxy_that_says_how_good_it_is(trained: Path) -> None:
    training = ProxyMetadata.load(trained).raw["training"]
    assert {file.name for file in trained.iterdir()} == {"proxy.json", "head.npz"}
    assert (training["data"]["prompts"], training["data"]["censored"], training["cap"]) == (90, 3, 512)
    held_out = training["cross_validation"]
    assert held_out["kendall_tau_b"] > 0.6
    assert held_out["oracle_share_c1"] > 0.7
    assert set(training["baselines"]) == {"prompt_length", "hashed_ngram_ridge"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "--epochs is 0; expected at least 1"),
        (["--seed", "1"], "--seed is for tuning"),
        (["--frozen-layers", "1"], "--frozen-layers is for tuning"),
        (["--tune-seeds", "1", "2"], "--tune-seeds is for tuning"),
        (["--recipe", "paper", "--states", "x.npz"], "--states teaches a distribution"),
    ],
)
def test_arguments_that_would_do_nothing_are_refused(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    arguments = ["--prompts", str(data[0]), "--lengths", str(data[1]), "--out", str(tmp_path / "out"), *more]
    assert train.main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("longest", "cap"), [(1, 1), (2, 2), (700, 1024), (1024, 1024), (1025, 2048)])
def test_lengths_of_other_days_give_the_same_bins(longest: int, cap: int) -> None:
    assert usual_cap(longest) == cap


def test_evaluation_scores_what_would_be_served(
    trained: Path, data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--proxy", str(trained), "--prompts", str(data[0]), "--lengths", str(data[1])]
    assert evaluate.main([*arguments, "--json", str(tmp_path / "out.json")]) == 0
    figures = json.loads((tmp_path / "out.json").read_text())
    wanted = {
        "kendall_tau_b",
        "pairwise_accuracy",
        "mae_tokens",
        "oracle_share_c1",
        "oracle_share_c8",
        "latency_p50_ms",
        "latency_p99_ms",
        "coverage_p50",
        "class3_accuracy",
        "class3_macro_f1",
        "class5_accuracy",
        "class5_macro_f1",
    }
    assert wanted <= set(figures)
    assert figures["kendall_tau_b"] > 0.6
    assert figures["trained_on_these_lengths"] is True
    assert "no held-out figures" in capsys.readouterr().out


@pytest.mark.parametrize("command", [train.main, evaluate.main])
def test_bad_data_ends_in_one_line_and_writes_nothing(
    command: Callable[[list[str]], int], data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"id": "0", "output_tokens": -1, "finish": "stop"}\n')
    out = ["--out", str(tmp_path / "out")] if command is train.main else ["--json", str(tmp_path / "out")]
    assert command(["--prompts", str(data[0]), "--lengths", str(broken), *out]) == 1
    assert "broken.jsonl:1: output_tokens is -1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_too_few_prompts_are_refused(
    data: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.jsonl"
    few.write_text("".join(line + "\n" for line in data[1].read_text().splitlines()[:49]))
    assert train.main(["--prompts", str(data[0]), "--lengths", str(few), "--out", str(tmp_path / "out")]) == 1
    assert "49 labelled prompts; expected at least 50" in capsys.readouterr().err


def test_the_ngram_baseline_learns_words_and_prompt_length_does_not(data: tuple[Path, Path]) -> None:
    taus = baseline_taus(load_labelled([data[0]], [data[1]]), folds=3, seeds=[0])
    assert taus["hashed_ngram_ridge"] > 0.5
    assert set(taus) == {"prompt_length", "hashed_ngram_ridge"}
    same_length = [LabelledPrompt(str(n), f"word{n % 10}", "", (Sample(n + 1, False),)) for n in range(60)]
    assert np.isnan(baseline_taus(same_length, folds=3, seeds=[0])["prompt_length"])


def test_the_ngram_baseline_is_told_for_each_file() -> None:
    """Words tell the lengths of one file and nothing of the other's."""
    chance = np.random.default_rng(0).permutation(60)
    prompts = [
        LabelledPrompt(f"a{n}", f"word{n % 10}", "", (Sample(10 * (n % 10) + 1, False),), "told") for n in range(60)
    ]
    prompts += [
        LabelledPrompt(f"b{n}", f"tale{n % 10}", "", (Sample(int(chance[n]) + 1, False),), "not") for n in range(60)
    ]
    taus = baseline_taus(prompts, folds=3, seeds=[0])
    assert taus["hashed_ngram_ridge_told"] > 0.9
    assert taus["hashed_ngram_ridge_not"] < 0.3


def test_ngram_vectors_have_length_one_and_do_not_depend_on_the_process() -> None:
    assert np.linalg.norm(hashed_ngrams("a b c a")) == pytest.approx(1)
    assert not hashed_ngrams("").any()
    assert int(np.flatnonzero(hashed_ngrams("hello"))[0]) == 0x3610A686 % 2**14  # crc32, not Python's seeded hash


def test_oracle_shares_are_one_for_the_truth_and_about_nothing_for_a_constant() -> None:
    true = np.exp(np.random.default_rng(0).normal(4, 1, 400)).round()
    assert oracle_shares(true, true, requests=600, seeds=1)["oracle_share_c1"] == pytest.approx(1)
    assert oracle_shares(true, np.ones(400), requests=600, seeds=1)["oracle_share_c1"] == pytest.approx(0, abs=1e-6)


def test_latency_is_the_median_after_warming_up() -> None:
    ticks = iter([float(n) for n in range(2 * (WARM_UP + REPEATS))])
    figures = latency_ms(lambda ids, mask: (ids, mask), tokens=4, vocabulary=10, clock=lambda: next(ticks))
    assert figures == {"latency_p50_ms": 1000.0, "latency_p99_ms": 1000.0}
