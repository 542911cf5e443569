"""The control requests that the operator's guide shows, taken from the page and sent."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ssjf.core.settings import CoreSettings
from ssjf.service.settings import ServiceSettings
from tests.unit.client.fake_triton import FakeTriton, tell_json
from tests.unit.service.harness import Bench, run

PAGE = (Path(__file__).parents[3] / "docs" / "operating.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Control requests\n")[1].split("\n## ")[0]
TENSORS = {"text_input", "max_tokens"}


def block(language: str) -> str:
    found = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def answer_to(parameters: dict[str, Any]) -> dict[str, Any]:
    """What a scheduler says to a control request."""
    state: dict[str, Any] = {}

    async def scenario(bench: Bench) -> None:
        client = bench.send(parameters=parameters)
        await bench.ended(client)
        assert client.ends == ["final"]
        state.update(json.loads(client.text))

    run(scenario, CoreSettings(policy="fcfs"), ServiceSettings(control_token="secret"))
    return state


def test_the_curl_example_is_what_the_scheduler_takes() -> None:
    script = 'curl() { printf "%s\\0" "$@"; }\n' + block("bash")
    environment = {"SSJF_CONTROL_TOKEN": "secret", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=True)
    quiet, url, data, body = done.stdout.rstrip("\0").split("\0")
    assert (quiet, url, data) == ("-s", "localhost:8000/v2/models/scheduler/generate", "-d")
    sent = json.loads(body)
    assert sent.keys() >= TENSORS
    state = answer_to({key: value for key, value in sent.items() if key not in TENSORS})
    assert (state["policy"], state["aging_rate"]) == ("ssjf-aging", 4)


def test_the_tritonclient_example_is_what_the_scheduler_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SSJF_CONTROL_TOKEN", "secret")
    triton = FakeTriton()
    triton.script = tell_json({"limits": "in force"})
    try:
        exec(block("python").replace("localhost:8001", triton.url), {})
    finally:
        triton.stop()
    assert capsys.readouterr().out == "in force\n"
    request = triton.wait_for(1)
    assert request.message.model_name == "scheduler"
    names = ("control", "control_token", "limits")
    state = answer_to({name: request.parameter(name) for name in names})
    assert (state["limits"]["max_inflight"], state["limits"]["max_wait_s"]) == (32, None)
