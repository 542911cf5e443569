"""scripts/health and scripts/drain where no server answers, and where they find the control token."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from ssjf_client import Client
from ssjf_tools import ssjf
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.deploy import drain, health
from ssjf_tools.deploy.asking import control_token
from tests.unit.client.fake_triton import FakeTriton, tell_json

NOBODY = "127.0.0.1:1"


def test_a_given_token_is_taken(tmp_path: Path) -> None:
    assert control_token("given", NOBODY, tmp_path) == "given"


def test_the_token_of_the_server_at_that_address_is_found(tmp_path: Path) -> None:
    for name, url in (("cpu-8001", "127.0.0.1:8001"), ("cpu-9001", "127.0.0.1:9001")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "serve.json").write_text(json.dumps({"grpc_url": url, "control_token": name}))
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "serve.json").write_text("{")
    assert control_token(None, "127.0.0.1:9001", tmp_path) == "cpu-9001"
    assert control_token(None, "localhost:9001", tmp_path) == "cpu-9001"
    assert control_token(None, NOBODY, tmp_path) is None


def test_the_command_line_of_the_checkout_finds_the_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SSJF_CONTROL_TOKEN", raising=False)
    monkeypatch.setattr(ssjf, "control_token", partial(control_token, run=tmp_path))
    triton = FakeTriton()
    triton.script = tell_json({"policy": "fcfs"})
    url = f"--url={triton.url}"
    try:
        assert ssjf.main(["policy", "fcfs", url]) == 2
        assert "--token: required" in capsys.readouterr().err
        (tmp_path / "cpu").mkdir()
        state = {"grpc_url": triton.url, "control_token": "written down"}
        (tmp_path / "cpu" / "serve.json").write_text(json.dumps(state))
        assert ssjf.main(["policy", "fcfs", url]) == 0
        assert ssjf.main(["policy", "fcfs", url, "--token=given"]) == 0
        monkeypatch.setenv("SSJF_CONTROL_TOKEN", "of the environment")
        assert ssjf.main(["status", url]) == 0
    finally:
        triton.stop()
    tokens = [request.parameter("control_token") for request in triton.received]
    assert tokens == ["written down", "given", "of the environment"]


def test_the_script_runs_that_command_line() -> None:
    script = (CHECKOUT / "scripts" / "ssjf").read_text(encoding="utf-8")
    assert script.rstrip().endswith('_run" --extra "$extra" ssjf_tools.ssjf "$@"')


def test_nobody_to_drain_is_no_reason_to_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """Kubernetes runs preStop also for a container whose server has died."""
    assert drain.main(["--url", NOBODY, "--token", "t", "--grace", "60"]) == 0
    assert "cannot drain" in capsys.readouterr().out


def test_a_server_that_goes_away_while_it_drains_ends_the_waiting() -> None:
    with Client(NOBODY, timeout_s=1) as client:
        assert drain.wait_until_empty(client, "t", 60.0, print)


def test_without_a_token_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.delenv("SSJF_CONTROL_TOKEN", raising=False)
    assert drain.main(["--url", NOBODY]) == 3
    assert "SSJF_CONTROL_TOKEN" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--grace", "-1"], ["--delay", "nan"]])
def test_drain_refuses_times_that_make_no_sense(words: list[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        drain.main(["--url", NOBODY, "--token", "t", *words])
    assert refused.value.code == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--models", "scheduler,nonsense"], "nonsense"),
        (["--timeout", "0"], "--timeout is 0"),
        (["--live", "--ready"], ""),
    ],
)
def test_health_refuses_what_makes_no_sense(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        health.main(words)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("question", ["--live", "--ready"])
def test_nobody_is_not_well(question: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["--url", NOBODY, question, "--timeout", "0.5", "--token", "t"]) == 1
    assert capsys.readouterr().out
