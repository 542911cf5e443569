"""The commands: same call, same figures; errors on stderr with status 2; rows as documented."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.simulate import plots
from ssjf_tools.simulate.__main__ import main
from ssjf_tools.simulate.metrics import mean_interval
from ssjf_tools.simulate.paper.__main__ import main as reproduce_paper

FIELDS = {
    "policy", "predictor", "batching", "slots", "load", "requests", "mean_jct_s", "p50_jct_s", "p90_jct_s", "p99_jct_s",
    "max_wait_s", "mean_jct_vs_fcfs", "share_of_oracle_gain", "ci95_mean_jct_vs_fcfs",
}  # fmt: skip


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
        (["--cv", "2"], "--cv has no effect: it is for gamma arrivals, these are poisson"),
        (["--time-scale", "2"], "--time-scale has no effect: it stretches the times of a trace, arrivals are poisson"),
        (["--arrivals", "burst", "--load", "0.5"], "--load has no effect: a burst comes all at once"),
        (["--arrivals", "burst", "--rate", "5"], "--rate has no effect: a burst comes all at once"),
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


def test_plots(tmp_path: Path, predictions: Path) -> None:
    folder = tmp_path / "plots"
    assert main(["--predictions", str(predictions), "--requests", "300", "--seeds", "1", "--plots", str(folder)]) == 0
    assert sorted(path.name for path in folder.iterdir()) == ["completion.png", "queue.png", "waits.png"]


@pytest.mark.parametrize("command", [main, reproduce_paper], ids=["simulate", "reproduce-paper"])
def test_plots_without_matplotlib_are_refused_before_anything_runs(
    command: Callable[[list[str]], int],
    tmp_path: Path,
    predictions: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(plots, "available", lambda: False)
    assert command(["--predictions", str(predictions), "--plots", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert not said.out
    # The command that it names can be pasted.
    lock = CHECKOUT / "requirements" / "plots.lock"
    assert f"{sys.executable} -m pip install --no-deps -r {lock}" in said.err
    assert "matplotlib==" in lock.read_text()


@pytest.mark.parametrize("script", ["simulate", "reproduce-paper"])
@pytest.mark.parametrize(("argument", "extra"), [("--plots", "plots"), ("--plots=p", "plots"), ("--policies", "serve")])
def test_the_scripts_ask_for_matplotlib_where_they_draw(tmp_path: Path, script: str, argument: str, extra: str) -> None:
    (tmp_path / "_run").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "_run").chmod(0o755)
    shutil.copy(CHECKOUT / "scripts" / script, tmp_path)
    done = subprocess.run([tmp_path / script, argument, "p"], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["--extra", extra]
    assert done.stdout.split()[-2:] == [argument, "p"]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    lines = "".join(f"{at / 4},9,{1 + at * 37 % 300}\n" for at in range(200))
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + lines)
    return path


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--time-scale", "2", "--load", "0.5"], "--time-scale has no effect: --load stretches the times already"),
        (["--time-scale", "2", "--rate", "0.5"], "--time-scale has no effect: --rate stretches the times already"),
        (
            ["--time-scale", "2", "--arrivals", "poisson"],
            "--time-scale has no effect: it stretches the times of a trace",
        ),
        (["--predictions", "P", "--noise", "0"], "--noise has no effect: the file brings predictions of its own"),
        (["--predictions", "P", "--arrivals", "poisson"], "--trace has no effect: beside --predictions only its times"),
    ],
)
def test_arguments_that_change_nothing_of_a_trace(
    trace: Path, predictions: Path, arguments: list[str], problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(predictions) if argument == "P" else argument for argument in arguments]
    assert main(["--trace", str(trace), *given]) == 2
    assert problem in capsys.readouterr().err


def test_a_time_scale_stretches_a_replay(tmp_path: Path, trace: Path) -> None:
    machine = ("--trace", str(trace), "--policies", "fcfs", "--slots", "1")
    (plain,), (slower,) = rows(tmp_path, *machine), rows(tmp_path, *machine, "--time-scale", "20")
    assert slower["mean_wait_s"] < plain["mean_wait_s"] / 10


@pytest.fixture
def timed(tmp_path: Path) -> Path:
    """Predictions with arrivals: answers of 2.1, 0.3, 0.5 and 0.7 s at 7, 10, 13 and 16 s."""
    path = tmp_path / "timed.csv"
    lines = "".join(f"{tokens},{tokens},{7 + 3 * at}\n" for at, tokens in enumerate((100, 10, 20, 30)))
    path.write_text("output_tokens,predicted_tokens,arrival_s\n" + lines)
    return path


def test_arrivals_that_come_with_predictions_are_replayed(
    tmp_path: Path, timed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (row,) = rows(tmp_path, "--predictions", str(timed), "--batching", "none", "--policies", "fcfs")
    assert (row["requests"], row["seeds"], row["load"]) == (4, 1, None)
    assert row["mean_jct_s"] == pytest.approx((2.1 + 0.3 + 0.5 + 0.7) / 4)  # each in its row's order: nobody waits
    said = capsys.readouterr()
    assert "trace arrivals" in said.out
    assert "note: at its own times this run is a load of 0.4 on the machine simulated" in said.err
    (row,) = rows(tmp_path, "--predictions", str(timed), "--batching", "none", "--policies", "fcfs", "--load", "0.8")
    assert (row["requests"], row["load"]) == (4, 0.8)


def test_arrivals_that_are_not_used_are_said(tmp_path: Path, timed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ("--predictions", str(timed), "--policies", "fcfs", "--arrivals", "poisson", "--requests", "50")
    (row,) = rows(tmp_path, *arguments)
    assert (row["requests"], row["seeds"], row["load"]) == (50, 3, 0.9)
    assert f"note: arrival_s of {timed} is not used: --arrivals poisson" in capsys.readouterr().err


def test_a_replayed_journal_says_on_which_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal, service = tmp_path / "journal.jsonl", tmp_path / "service.json"
    entry = {"prompt_tokens": 10, "predicted_tokens": 30, "output_tokens": 40}
    journal.write_text("".join(json.dumps(entry | {"arrival": 1.7e9 + at}) + "\n" for at in range(20)))
    service.write_text('{"base_s": 0.5, "prefill_s": 0.01, "steps": {"1": 0.1, "4": 0.2}, "chunk_tokens": 64}')

    rows(tmp_path, "--journal", str(journal), "--policies", "fcfs", "--seeds", "5")
    said = capsys.readouterr()
    assert "8 slots" in said.out
    assert "service times: 0.1 s + 0.02 s a token whatever the batch (the paper's)" in said.out
    assert "note: service times are the paper's" in said.err
    assert "note: 8 slots are this command's default" in said.err
    assert "note: --seeds 5: a replay has nothing random in it" in said.err

    rows(tmp_path, "--journal", str(journal), "--policies", "fcfs", "--slots", "4", "--service", str(service))
    said = capsys.readouterr()
    assert "4 slots" in said.out
    assert (
        "service times: 0.5 s + 10 ms a prompt token + 0.1 s a token with 1 running to 0.2 s with 4, "
        "prompts in chunks of 64 tokens\n" in said.out
    )
    assert "the paper's" not in said.out + said.err
    assert "default" not in said.err
