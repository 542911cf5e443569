"""The commands: same call, same figures; errors on stderr with status 2; rows as documented."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssjf_tools.bench_core import main as bench_core
from ssjf_tools.simulate import plots
from ssjf_tools.simulate.__main__ import main
from ssjf_tools.simulate.metrics import mean_interval
from ssjf_tools.simulate.paper.__main__ import main as reproduce_paper

FIELDS = {
    "policy", "predictor", "batching", "slots", "load", "requests", "mean_jct_s", "p50_jct_s", "p90_jct_s", "p99_jct_s",
    "max_wait_s", "mean_jct_vs_fcfs", "share_of_oracle_gain", "ci95_mean_jct_vs_fcfs",
}  # fmt: skip


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    source = np.random.default_rng(0)
    lengths = np.clip(source.lognormal(4.5, 1.0, 500).round(), 1, 2000)
    lines = [f"{int(length)},{int(length > 90)},{np.digitize(length, [40, 90, 200, 400])}" for length in lengths]
    path = tmp_path / "predictions.csv"
    path.write_text("output_tokens,class3,class5\n" + "\n".join(lines) + "\n")
    return path


def rows(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    out = tmp_path / "out.json"
    assert main([*arguments, "--json", str(out)]) == 0
    found: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    for row in found:
        row.pop("us_per_request")
    return found


def test_rows(tmp_path: Path, predictions: Path) -> None:
    arguments = (
        "--predictions",
        str(predictions),
        "--slots",
        "2",
        "--load",
        "0.9",
        "--requests",
        "3000",
        "--seeds",
        "3",
    )
    found = rows(tmp_path, *arguments, "--policies", "fcfs,random,ssjf,ssjf@20,sjf-oracle")
    assert found == rows(tmp_path, *arguments, "--policies", "fcfs,random,ssjf,ssjf@20,sjf-oracle")
    by_name = {(row["policy"], row["predictor"]): row for row in found}
    assert set(by_name) == {
        ("fcfs", None), ("random", None), ("sjf-oracle", None),
        ("ssjf", "class3"), ("ssjf", "class5"), ("ssjf@20", "class3"), ("ssjf@20", "class5"),
    }  # fmt: skip
    assert all(row.keys() >= FIELDS for row in found)
    fcfs, oracle, ssjf = by_name["fcfs", None], by_name["sjf-oracle", None], by_name["ssjf", "class5"]
    assert fcfs["mean_jct_vs_fcfs"] == 0
    assert oracle["share_of_oracle_gain"] == 1
    assert oracle["mean_jct_vs_fcfs"] < ssjf["mean_jct_vs_fcfs"] < by_name["ssjf", "class3"]["mean_jct_vs_fcfs"] < 0
    low, high = ssjf["ci95_mean_jct_vs_fcfs"]
    assert low < ssjf["mean_jct_vs_fcfs"] < high < 0
    assert ssjf["mean_jct_vs_fcfs"] == pytest.approx(ssjf["mean_jct_s"] / fcfs["mean_jct_s"] - 1)
    assert by_name["ssjf@20", "class5"]["max_wait_s"] < ssjf["max_wait_s"]
    assert (fcfs["slots"], fcfs["load"], fcfs["requests"], fcfs["batching"]) == (2, 0.9, 3000, "continuous")


def test_without_fcfs_nothing_is_compared(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "--policies", "ssjf", "--requests", "200", "--seeds", "1")
    assert row["mean_jct_vs_fcfs"] is None
    assert row["share_of_oracle_gain"] is None
    assert row["ci95_mean_jct_vs_fcfs"] is None


def test_a_rate_is_a_load(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "--policies", "fcfs", "--rate", "0.5", "--slots", "1", "--requests", "100")
    (same,) = rows(tmp_path, "--policies", "fcfs", "--load", str(row["load"]), "--slots", "1", "--requests", "100")
    assert same["rate"] == pytest.approx(0.5)
    assert same["mean_jct_s"] == pytest.approx(row["mean_jct_s"])


def test_no_batching_is_one_slot(tmp_path: Path) -> None:
    (row,) = rows(tmp_path, "--policies", "fcfs", "--batching", "none", "--slots", "8", "--requests", "100")
    assert row["slots"] == 1


def test_trace_and_journal(tmp_path: Path, predictions: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(
        "arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i / 4},9,{1 + i * 37 % 300}\n" for i in range(200))
    )
    (row,) = rows(tmp_path, "--trace", str(trace), "--policies", "fcfs")
    assert (row["load"], row["requests"], row["seeds"]) == (None, 200, 1)
    (row,) = rows(tmp_path, "--trace", str(trace), "--load", "0.7", "--policies", "fcfs", "--requests", "200")
    assert row["load"] == 0.7
    both = rows(
        tmp_path, "--trace", str(trace), "--predictions", str(predictions), "--policies", "ssjf", "--requests", "200"
    )
    assert [row["predictor"] for row in both] == ["class3", "class5"]
    journal = tmp_path / "journal.jsonl"
    entry = {"prompt_tokens": 1, "predicted_tokens": 30, "output_tokens": 40}
    journal.write_text("".join(json.dumps(entry | {"arrival": 1.7e9 + i}) + "\n" for i in range(50)))
    (row,) = rows(tmp_path, "--journal", str(journal), "--policies", "hrrn")
    assert (row["predictor"], row["requests"]) == ("predicted_tokens", 50)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--policies", "lifo"], "'lifo' is none of"),
        (["--policies", ","], "names none"),
        (["--predictions", "nowhere.csv"], "nowhere.csv: cannot be read"),
        (["--predictors", "class9"], "'class9' is none of noisy"),
        (["--load", "1", "--rate", "2"], "exclude each other"),
        (["--arrivals", "trace"], "needs a file with arrival times"),
        (["--journal", "a", "--trace", "b"], "leave --predictions and --trace out"),
    ],
)
def test_wrong_calls(arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--slots", "0"], ["--load", "-1"], ["--requests", "many"], ["--arrivals", "never"]]
)
def test_values_out_of_range(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_intervals_are_students() -> None:
    assert mean_interval([1.0]) is None
    low, high = mean_interval([1.0, 2.0, 3.0]) or (0, 0)
    assert (low + high) / 2 == pytest.approx(2)
    assert (high - low) / 2 == pytest.approx(4.303 / 3**0.5)


def test_reproduce_paper(tmp_path: Path, predictions: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "paper.json"
    call = ["--predictions", str(predictions), "--runs", "3", "--only", "bursts", "--json", str(out)]
    assert reproduce_paper(call) == 0
    bursts = json.loads(out.read_text())["bursts"]
    assert {row["batching"] for row in bursts} == {"none", "dynamic", "continuous"}
    assert {row["rate"] for row in bursts} == {None, *range(1, 11)}
    totals = {(row["batching"], row["policy"], row["predictor"]): row for row in bursts if row["rate"] is None}
    none = totals["none", "ssjf", "class5"]
    assert totals["none", "sjf-oracle", None]["mean_jct_vs_fcfs"] < none["mean_jct_vs_fcfs"] < -0.1
    # The paper's figure flatters: nothing is completed faster in the end.
    assert none["completions_at_25_vs_fcfs"] > 0.3
    assert abs(none["completions_at_100_vs_fcfs"]) < 0.01
    assert "done/s at 25 %" in capsys.readouterr().out


def test_reproduce_paper_in_steady_state(
    tmp_path: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ssjf_tools.simulate.paper.steady.run_steady.__defaults__", ((0.7, 0.9), (1, 8)))
    out = tmp_path / "paper.json"
    call = [
        "--predictions",
        str(predictions),
        "--only",
        "steady",
        "--requests",
        "2000",
        "--seeds",
        "1",
        "--json",
        str(out),
    ]
    assert reproduce_paper(call) == 0
    found = {
        (row["slots"], row["load"], row["policy"], row["predictor"]): row for row in json.loads(out.read_text())["rows"]
    }
    assert len(found) == 4 * 7
    gain = {slots: found[slots, 0.9, "ssjf", "class5"]["mean_jct_vs_fcfs"] for slots in (1, 8)}
    assert gain[1] < gain[8] < 0
    text = capsys.readouterr().out
    assert "ssjf@60 class5" in text
    assert "longest wait" in text


def test_reproduce_paper_refuses_wrong_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce_paper(["--predictions", str(tmp_path / "none.csv")]) == 2
    assert "none.csv: cannot be read" in capsys.readouterr().err


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed")
def test_plots(tmp_path: Path, predictions: Path) -> None:
    folder = tmp_path / "plots"
    assert main(["--predictions", str(predictions), "--requests", "300", "--seeds", "1", "--plots", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["completion.png", "queue.png", "waits.png"]


@pytest.mark.skipif(not plots.available(), reason="matplotlib is not installed")
def test_paper_plots(tmp_path: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf_tools.simulate.paper.steady.run_steady.__defaults__", ((0.7, 0.9), (1, 2)))
    folder = tmp_path / "plots"
    call = [
        "--predictions",
        str(predictions),
        "--runs",
        "2",
        "--requests",
        "200",
        "--seeds",
        "1",
        "--plots",
        str(folder),
    ]
    assert reproduce_paper(call) == 0
    drawn = {path.name for path in folder.iterdir()}
    assert {"burst-none.png", "longest-wait.png", "steady-ssjf-class5.png", "steady-ssjf-within-60-class5.png"} <= drawn


def test_plots_without_matplotlib_are_refused_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    assert main(["--plots", str(tmp_path)]) == 2
    assert "matplotlib" in capsys.readouterr().err


def test_bench_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "core.json"
    assert bench_core(["--waiting", "2000", "--samples", "200", "--switch-waiting", "500", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert len(figures["push_pop"]) == 8
    assert figures["switch_s"].keys() == {row["policy"] for row in figures["push_pop"]}
    assert [row["waiting"] for row in figures["growth"]] == [1000]
    assert "live switch" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench_core(["--policies", "lifo"])
    with pytest.raises(SystemExit):
        bench_core(["--waiting", "0"])
