from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ssjf.core.settings import LIVE_LIMITS
from ssjf_client.cli import main
from tests.unit.client.fake_triton import FakeTriton, fail, tell, tell_json, tell_then_hang

CLIENT = Path(__file__).resolve().parents[3] / "client"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
QUEUE_FULL = "the queue is full: 9 requests wait, the limit is 9 requests; retry in 2.50 s"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSJF_URL", raising=False)
    monkeypatch.delenv("SSJF_CONTROL_TOKEN", raising=False)


@pytest.fixture
def url(triton: FakeTriton) -> str:
    return f"--url={triton.url}"


def start(*arguments: str) -> subprocess.Popen[str]:
    """The command line as a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(CLIENT), "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "ssjf_client", *arguments]
    # A shell that puts the tests into the background has them ignore Ctrl-C, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    )


def read_all(terminal: int) -> str:
    """What the other side of a terminal writes until it closes."""
    pieces = []
    try:
        while piece := os.read(terminal, 65536):
            pieces.append(piece)
    except OSError:  # Linux's way to say that the other side has closed
        pass
    os.close(terminal)
    return b"".join(pieces).decode()


def test_generate_prints_the_answer(triton: FakeTriton, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "hi", url]) == 0
    assert capsys.readouterr().out == "Hello world!\n"
    assert triton.wait_for(1).text == "hi"


def test_generate_passes_every_option_on(triton: FakeTriton, url: str) -> None:
    options = "--door ensemble --max-tokens 9 --min-tokens 2 --stop a --stop b --temperature 0.5 --top-p 0.9 --top-k 4"
    more = "--seed 7 --repetition-penalty 1.5 --request-id mine --priority-class 1 --tenant blue --deadline-ms 900"
    rest = "--expected-tokens 5 --timeout 12 --header X-Route=blue"
    assert main(["generate", "hi", url, *options.split(), *more.split(), *rest.split()]) == 0
    got = triton.wait_for(1)
    values = {name: got.tensor(name)[0, 0] for name in ("max_tokens", "min_tokens", "temperature", "top_k", "seed")}
    assert values == {"max_tokens": 9, "min_tokens": 2, "temperature": 0.5, "top_k": 4, "seed": 7}
    assert got.tensor("stop_words").tolist() == [[b"a", b"b"]]
    assert (got.message.model_name, got.message.id, got.metadata["x-route"]) == ("ensemble", "mine", "blue")
    names = ("priority_class", "tenant", "deadline_ms", "expected_tokens", "timeout")
    assert [got.parameter(name) for name in names] == [1, "blue", 900, 5, 12_000_000]


def test_generate_stream_prints_the_same_text(triton: FakeTriton, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    triton.script = tell("Grüße", " 🌍")
    assert main(["generate", "hi", url, "--stream"]) == 0
    assert capsys.readouterr().out == "Grüße 🌍\n"
    assert triton.wait_for(1).tensor("stream")[0, 0]


def test_generate_json(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "hi", url, "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["text"], answer["predicted_tokens"], answer["finish_reason"]) == ("Hello world!", 42, "stop")


def test_generate_stream_json_is_one_object_per_line_and_the_result_last(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "hi", url, "--stream", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == ["Hello", " world", "!", "Hello world!"]
    assert lines[-1]["complete"]


def test_the_prompt_may_come_from_standard_input(triton: FakeTriton, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("Grüße\n".encode())))
    assert main(["generate", "-", url]) == 0
    assert triton.wait_for(1).text == "Grüße\n"


def test_standard_input_must_be_utf_8(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"ab\xff")))
    assert main(["generate", "-", url]) == 2
    assert "not UTF-8 (byte 2)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("message", "code", "name"),
    [
        ("the engine\ndied", 1, "ServerError: the engine died"),
        ("max_tokens is 9, allowed: 1 to 8", 2, "InvalidRequest: max_tokens is 9"),
        (QUEUE_FULL, 3, "ServerUnavailable: the queue is full"),
        ("its deadline passed before an engine slot was free", 4, "DeadlineExceeded: its deadline"),
        ("the request was cancelled", 5, "Cancelled: the request"),
    ],
)
def test_an_error_is_one_line_on_stderr_and_an_exit_code(
    triton: FakeTriton, url: str, capsys: pytest.CaptureFixture[str], message: str, code: int, name: str
) -> None:
    triton.script = fail(message)
    assert main(["generate", "hi", url]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"ssjf: {name}")
    assert captured.err.count("\n") == 1


def test_a_wrong_field_is_refused_without_a_server(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["generate", "hi", "--max-tokens", "0"]) == 2
    assert capsys.readouterr().err.startswith("ssjf: InvalidRequest: max_tokens=0: must be an integer from 1")


def test_no_server_is_exit_code_3(capsys: pytest.CaptureFixture[str]) -> None:
    silent = FakeTriton()
    silent.stop()
    assert main(["generate", "hi", f"--url={silent.url}", "--timeout", "5"]) == 3
    assert "ConnectionLost" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [[], ["generate"], ["generate", "hi", "--door", "back"], ["nonsense"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: ssjf" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "exit codes:" in out


def test_url_and_token_come_from_the_environment(triton: FakeTriton, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSJF_URL", triton.url)
    monkeypatch.setenv("SSJF_CONTROL_TOKEN", "secret")
    triton.script = tell_json({"policy": "fcfs"})
    assert main(["policy", "fcfs"]) == 0
    assert triton.wait_for(1).parameter("control_token") == "secret"


def test_status_prints_what_the_server_says(triton: FakeTriton, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    state = {"ready": True, "policy": "ssjf", "queue_length": 3, "engines": ["a"]}
    triton.script = tell_json(state)
    assert main(["status", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == state
    assert main(["status", url]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines == [["ready", "True"], ["policy", "ssjf"], ["queue_length", "3"], ["engines", '["a"]']]


def test_policy_and_limits_need_a_token(triton: FakeTriton, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["policy", "fcfs", url]) == 2
    errors = capsys.readouterr().err
    assert "--token: required" in errors
    assert ".run/*/serve.json" in errors
    assert main(["limits", "--max-inflight", "3", url]) == 2
    assert triton.received == []


def test_policy_and_limits_are_sent(triton: FakeTriton, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    triton.script = tell_json({"policy": "fcfs"})
    assert main(["policy", "fcfs", url, "--token=t"]) == 0
    assert capsys.readouterr().out == "policy  fcfs\n"
    assert main(["limits", "--max-inflight=3", url, "--token=t"]) == 0
    assert triton.wait_for(1).parameter("policy") == "fcfs"
    assert triton.wait_for(2).parameter("limits") == '{"max_inflight": 3}'
    assert main(["limits", url, "--token=t"]) == 2


def test_every_live_limit_has_an_option(triton: FakeTriton, url: str) -> None:
    triton.script = tell_json({})
    given: dict[str, Any] = {
        "max_inflight": 3, "over_dispatch": 0, "max_inflight_tokens": 900, "batching": "dynamic", "batch_size": 2,
        "max_wait_s": 1.5, "max_queue": 9, "max_queue_bytes": 10_000,
    }  # fmt: skip
    assert given.keys() == LIVE_LIMITS
    words = [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    assert main(["limits", *words, url, "--token=t"]) == 0
    assert json.loads(triton.wait_for(1).parameter("limits")) == given


def test_a_budget_and_the_bound_on_waiting_can_be_taken_off(triton: FakeTriton, url: str) -> None:
    triton.script = tell_json({})
    assert main(["limits", "--max-inflight-tokens=none", "--max-wait-s=inf", url, "--token=t"]) == 0
    sent = triton.wait_for(1).parameter("limits")
    assert json.loads(sent) == {"max_inflight_tokens": None, "max_wait_s": None}


@pytest.mark.parametrize("word", ["--max-inflight-tokens=some", "--batching=static", "--max-queue=2.5"])
def test_limits_of_another_kind_are_refused(
    triton: FakeTriton, url: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["limits", word, url, "--token=t"])
    assert refused.value.code == 2
    assert word.split("=", maxsplit=1)[0] in capsys.readouterr().err
    assert triton.received == []


def test_settings_go_with_a_policy(triton: FakeTriton, url: str) -> None:
    triton.script = tell_json({})
    words = ["--set", "random_seed=7", "--set", "aging_rate=none", "--set", "prefill_weight=0.5", "--set", "x=fast"]
    assert main(["policy", "fcfs", *words, url, "--token=t"]) == 0
    sent = json.loads(triton.wait_for(1).parameter("settings"))
    assert sent == {"random_seed": 7, "aging_rate": None, "prefill_weight": 0.5, "x": "fast"}
    assert main(["policy", "fcfs", url, "--token=t"]) == 0
    assert triton.wait_for(2).parameter("settings") is None


@pytest.mark.parametrize("word", ["aging_rate", "=4", "aging_rate=nan"])
def test_a_setting_has_a_key_and_a_finite_value(
    triton: FakeTriton, url: str, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "fcfs", "--set", word, url, "--token=t"]) == 2
    assert "InvalidRequest" in capsys.readouterr().err
    assert triton.received == []


def test_a_token_that_nobody_gave_is_looked_for(triton: FakeTriton, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    triton.script = tell_json({"policy": "fcfs"})
    asked = []

    def find(server: str) -> str:
        asked.append(server)
        return "found"

    assert main(["policy", "fcfs", url], find) == 0
    assert main(["status", url], find) == 0
    assert main(["status", url, "--token=given"], find) == 0
    assert main(["generate", "hi", url], find) == 0
    assert [request.parameter("control_token") for request in triton.received] == ["found", "found", "given", None]
    assert asked == [triton.url] * 2
    assert main(["policy", "fcfs", url], lambda _url: None) == 2


def test_top_shows_the_state(triton: FakeTriton, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    triton.script = tell_json({"policy": "ssjf", "queue_length": 3})
    assert main(["top", url, "--count=2", "--interval=0.01"]) == 0
    assert capsys.readouterr().out.count("policy ssjf") == 2
    assert main(["top", url, "--interval=0"]) == 2


@pytest.mark.parametrize("without_rich", [False, True])
def test_top_draws_on_a_terminal_and_gives_the_cursor_back(triton: FakeTriton, url: str, without_rich: bool) -> None:
    triton.script = tell_json({"policy": "ssjf", "queue_length": 3})
    hide = "sys.modules['rich'] = None; " if without_rich else ""
    program = f"import sys; {hide}from ssjf_client.cli import main; sys.exit(main())"
    terminal, end = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(CLIENT), "TERM": "xterm"}
    command = [sys.executable, "-c", program, "top", url, "--count=2", "--interval=0.01"]
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env=environment) as process:
        os.close(end)
        shown = read_all(terminal)
    assert process.returncode == 0, shown
    assert shown.count("policy ssjf") == 2
    assert shown.rindex(SHOW_CURSOR) > shown.rindex(HIDE_CURSOR) > -1


@pytest.mark.parametrize(("header", "code"), [("no-equals-sign", 2), ("=value", 2), ("A=b=c", 0)])
def test_a_header_has_a_name_and_a_value(triton: FakeTriton, url: str, header: str, code: int) -> None:
    assert main(["generate", "hi", url, "--header", header]) == code
    assert [request.metadata["a"] for request in triton.received] == ["b=c"] * (code == 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cancels_on_the_server(triton: FakeTriton, url: str, number: signal.Signals) -> None:
    triton.script = tell_then_hang("a")
    process = start("generate", "hi", url, "--stream", "--door=ensemble")
    assert process.stdout is not None
    assert process.stdout.read(1) == "a"
    process.send_signal(number)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "ssjf: interrupted\n"
    assert triton.wait_for(1).cancelled.wait(5)
    assert triton.wait_for(2).tensor("stop")[0, 0]


def test_a_reader_that_leaves_cancels_quietly(triton: FakeTriton, url: str) -> None:
    def script(request: Any) -> Any:
        yield from tell(*["some text"] * 20_000)(request)

    triton.script = script
    process = start("generate", "hi", url, "--stream")
    assert process.stdout is not None
    assert process.stdout.read(4) == "some"
    process.stdout.close()
    assert process.wait(timeout=20) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert triton.wait_for(1).cancelled.wait(5)
