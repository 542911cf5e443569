"""Repeats of several measurements in one table."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ssjf_tools.bench.live.__main__ import main as bench
from ssjf_tools.bench.live.pooled import pool
from ssjf_tools.bench.live.record import as_record, read_outcome, write_record
from ssjf_tools.simulate.tables import InputError
from tests.unit.bench.build import make_outcome, one_slot

TOKENS = [40, 10, 20, 10]
ARRIVALS = [0.0, 0.5, 0.6, 0.7]
ORDERS = {"fcfs": [0, 1, 2, 3], "ssjf": [0, 1, 3, 2], "sjf-oracle": [1, 3, 2, 0]}
SPEEDS = (0.1, 0.2, 0.05)  # seconds a token in each repeat


def write(path: Path, speeds: tuple[float, ...], seed: int, *arms: str) -> Path:
    runs = [
        (arm, repeat, one_slot(ARRIVALS, TOKENS, ORDERS[arm], token_s))
        for repeat, token_s in enumerate(speeds)
        for arm in arms or ORDERS
    ]
    outcome = make_outcome(runs, TOKENS)
    write_record(path, as_record(replace(outcome, settings=replace(outcome.settings, seed=seed))))
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return path


def test_as_one_measurement_with_all_repeats(tmp_path: Path) -> None:
    whole = json.loads(write(tmp_path / "whole.json", SPEEDS, 0).read_text())
    parts = [write(tmp_path / "a.json", SPEEDS[:2], 0), write(tmp_path / "b.json", SPEEDS[2:], 2)]
    found = json.loads(json.dumps(pool(parts)))
    slowdowns = [f"slowdown_q{quarter}" for quarter in range(1, 5)]  # against the prompt alone, by measurement
    for row, expected in zip(found["rows"], whole["rows"], strict=True):
        assert row["repeats"] == 3
        for name in set(expected) - set(slowdowns):
            assert row[name] == pytest.approx(expected[name], abs=1e-3), name
    assert [one["repeats"] for one in found["measurements"]] == [2, 1]


def test_a_measurement_survives_being_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", SPEEDS, 0)
    content, outcome = read_outcome(path)
    again = json.loads(json.dumps(as_record(outcome)))
    for key in set(content) - {"date", "runs", "rows"}:
        assert again[key] == content[key], key
    for row, expected in zip(again["rows"], content["rows"], strict=True):
        assert row == {name: pytest.approx(value, abs=1e-3) for name, value in expected.items()}
    assert [one["columns"] for one in again["runs"]] == [one["columns"] for one in content["runs"]]


def test_command_reads_gzip_and_writes_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain, packed, out = write(tmp_path / "a.json", SPEEDS[:2], 0), tmp_path / "b.json.gz", tmp_path / "out.json"
    packed.write_bytes(gzip.compress(write(tmp_path / "b.json", SPEEDS[2:], 2).read_bytes()))
    assert bench(["--pool", str(plain), str(packed), "--json", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "b.json.gz" in printed
    assert "of oracle's gain" in printed
    assert [row["policy"] for row in json.loads(out.read_text())["rows"]] == list(ORDERS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda one: one["settings"].update(load=0.5), r"settings.load: is 0.5, in the first measurement 0.9"),
        (lambda one: one["prompts"][0].update(id="other"), r"prompts: are not those of the first"),
        (lambda one: one["settings"].update(seed=1), r"settings.seed: has a repeat of seed 1, as .*a.json has"),
        (lambda one: one["runs"].pop(), r"policies: are fcfs, ssjf, in the first measurement fcfs, ssjf, sjf-oracle"),
        (lambda one: one["runs"].append(one["runs"][0]), r"runs: needs each policy once in each repeat"),
        (lambda one: one["runs"][0].update(prompt=[0, 1, 2, 4]), r"runs: asks a prompt that is none of the 4"),
        (lambda one: one.pop("capacity"), r"is not a measurement of scripts/bench: KeyError\('capacity'\)"),
    ],
)
def test_what_does_not_belong_together(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first = write(tmp_path / "a.json", SPEEDS[:2], 0)
    other = changed(write(tmp_path / "b.json", SPEEDS[2:], 2), change)
    with pytest.raises(InputError, match=message):
        pool([first, other])
    assert bench(["--pool", str(first), str(other)]) == 2
    assert "b.json" in capsys.readouterr().err


def test_other_policies(tmp_path: Path) -> None:
    first = write(tmp_path / "a.json", SPEEDS[:2], 0)
    with pytest.raises(InputError, match=r"policies: are fcfs, ssjf, in the first measurement fcfs, ssjf, sjf-oracle"):
        pool([first, write(tmp_path / "b.json", SPEEDS[2:], 2, "fcfs", "ssjf")])


def test_twice_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.json", SPEEDS, 0)
    with pytest.raises(InputError, match="has a repeat of seed 0"):
        pool([path, path])


def test_arguments_without_effect(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["--pool", "a.json", "--load", "0.5"]) == 2
    assert "no effect beside --pool: --load" in capsys.readouterr().err
