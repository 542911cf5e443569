"""`scripts/reproduce-paper`: its figures, its plots, its errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssjf_tools.simulate.paper.__main__ import main as reproduce_paper


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
    size = ["--requests", "2000", "--seeds", "1"]
    call = ["--predictions", str(predictions), "--only", "steady", *size, "--json", str(out)]
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


def test_paper_plots(tmp_path: Path, predictions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ssjf_tools.simulate.paper.steady.run_steady.__defaults__", ((0.7, 0.9), (1, 2)))
    folder = tmp_path / "plots"
    size = ["--requests", "200", "--seeds", "1"]
    call = ["--predictions", str(predictions), "--runs", "2", *size, "--plots", str(folder)]
    assert reproduce_paper(call) == 0
    drawn = {path.name for path in folder.iterdir()}
    assert {"burst-none.png", "longest-wait.png", "steady-ssjf-class5.png", "steady-ssjf-within-60-class5.png"} <= drawn


@pytest.mark.parametrize(
    ("only", "argument"), [("steady", "--runs"), ("steady", "--seed"), ("bursts", "--requests"), ("bursts", "--seeds")]
)
def test_reproduce_paper_refuses_arguments_of_the_part_that_is_left_out(
    predictions: Path, only: str, argument: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        reproduce_paper(["--predictions", str(predictions), "--only", only, argument, "7"])
    assert caught.value.code == 2
    assert f"{argument} has no effect with --only {only}" in capsys.readouterr().err
