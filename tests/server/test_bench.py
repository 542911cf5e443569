"""scripts/bench on a real server: all arms answer, lengths repeat, what it switched is switched back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ssjf_client import Client
from ssjf_tools.bench.live.__main__ import main as bench
from ssjf_tools.bench.live.calibrate import calibrate
from ssjf_tools.bench.live.occupancy import full_tokens_per_s
from ssjf_tools.bench.live.record import read_outcome, write_record
from ssjf_tools.bench.live.target import running_target
from ssjf_tools.serve.throwaway import Throwaway


def test_arms_on_a_running_server(server: Throwaway, client: Client, tmp_path: Path) -> None:
    before = client.status(server.token)
    prompts = tmp_path / "prompts.jsonl"
    texts = [f"What is the capital of {name}?" for name in ("Norway", "Peru", "Japan", "Kenya", "Cuba", "Malta")]
    prompts.write_text("".join(json.dumps({"prompt": text, "max_tokens": 4 + len(text) % 9}) + "\n" for text in texts))
    where = ["--url", server.grpc_url, "--token", server.token]
    what = ["--prompts", str(prompts), "--arrivals", "burst", "--requests", "8", "--max-inflight", "2"]
    out, page = tmp_path / "out.json", tmp_path / "page.html"
    arms = "fcfs,ssjf-aging,sjf-oracle,direct"
    assert bench([*where, *what, "--policies", arms, "--json", str(out), "--html", str(page)]) == 0

    content = json.loads(out.read_text())
    rows = {row["policy"]: row for row in content["rows"]}
    assert list(rows) == arms.split(",")
    for row in rows.values():
        assert row["failed"] == 0
        assert row["kept_lengths"] == 1.0  # greedy: the engine asked directly gives the same answers, too
        assert row["mean_ttft_s"] < row["mean_jct_s"]
    assert rows["direct"]["max_wait_s"] is None
    assert rows["fcfs"]["max_wait_s"] > 0.05  # eight at once for two slots
    assert content["settings"]["max_inflight"] == 2
    assert page.read_text().count("<svg") == 4

    after = client.status(server.token)
    assert (after.policy, after.limits) == (before.policy, before.limits)


def test_each_repeat_aims_at_the_load_by_the_speed_of_the_last(
    server: Throwaway, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.json"
    prompts.write_text("".join(f'{{"prompt": "Name {count} colours.", "max_tokens": {count}}}\n' for count in (4, 16)))
    where = ["--url", server.grpc_url, "--token", server.token, "--max-inflight", "1", "--prompts", str(prompts)]
    what = ["--requests", "8", "--repeats", "2", "--policies", "fcfs,ssjf", "--load", "3", "--json", str(out)]
    assert bench([*where, *what]) == 0
    content, outcome = read_outcome(out)
    speeds = [full_tokens_per_s(one.run, 1) or 0.0 for one in outcome.runs if one.repeat == 0]
    first, second = content["settings"]["rates"]
    assert first == pytest.approx(3 * content["capacity"]["requests_per_s"])
    assert second == pytest.approx(3 * np.mean(speeds) / content["capacity"]["mean_tokens"], rel=1e-2)
    assert all(row["realised_load"] > 1 for row in content["rows"])  # three times what the machine can do
    assert "load" in capsys.readouterr().out


def test_what_is_complete_outlives_an_interruption(
    server: Throwaway,
    client: Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = client.status(server.token)
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out.json"
    prompts.write_text('{"prompt": "Name a colour.", "max_tokens": 4}\n')

    def write_twice(path: Path, record: dict[str, Any]) -> None:
        if record["settings"]["repeats"] == 2:
            raise KeyboardInterrupt  # Ctrl-C in the second repeat, at its last moment
        write_record(path, record)

    monkeypatch.setattr("ssjf_tools.bench.live.__main__.write_record", write_twice)
    where = ["--url", server.grpc_url, "--token", server.token, "--prompts", str(prompts), "--arrivals", "burst"]
    assert bench([*where, "--requests", "3", "--repeats", "3", "--policies", "fcfs,ssjf", "--json", str(out)]) == 130
    assert f"1 of 3 repeats were complete: {out}" in capsys.readouterr().err
    kept = json.loads(out.read_text())
    assert kept["settings"]["repeats"] == 1
    assert [(run["policy"], run["repeat"]) for run in kept["runs"]] == [("fcfs", 0), ("ssjf", 0)]
    assert [row["requests"] for row in kept["rows"]] == [3, 3]
    assert client.status(server.token).policy == before.policy


def test_calibration(server: Throwaway) -> None:
    with running_target(server.grpc_url, server.token, 2) as target:
        model = asyncio.run(calibrate(target, 1, lambda _what: None, prompt_words=(8, 64)))
    assert [size for size, _ in model.steps] == [1, 2]
    assert all(0.001 < seconds < 1 for _, seconds in model.steps)
    assert 0 < model.prefill_s < 0.1


def test_a_wrong_token_is_refused(server: Throwaway, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["--url", server.grpc_url, "--token", "wrong", "--requests", "1"]) == 2
    assert "is not its control token" in capsys.readouterr().err
