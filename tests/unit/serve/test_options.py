from __future__ import annotations

import socket
from pathlib import Path

import pytest

from ssjf_tools.serve import options as module
from ssjf_tools.serve.options import ServeOptions, parse, taken_ports


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "model_repository"
    folder.mkdir()
    return folder


def parsed(repository: Path, *argv: str) -> ServeOptions:
    return parse(["--model-repository", str(repository), *argv])


def test_defaults_leave_scheduling_to_the_models(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parsed(repository, "--profile", "cpu")
    assert (options.grpc_port, options.http_port, options.metrics_port) == (8001, 8000, 8002)
    assert options.policy is None
    assert options.max_inflight is None
    assert options.host == "127.0.0.1"
    assert options.start_timeout_s == module.CPU_START_TIMEOUT_S


def test_the_engine_of_the_trtllm_profile_gets_longer_to_load(repository: Path) -> None:
    assert parsed(repository, "--profile", "trtllm").start_timeout_s == module.TRTLLM_START_TIMEOUT_S
    assert parsed(repository, "--profile", "trtllm", "--start-timeout", "5").start_timeout_s == 5


def test_what_follows_two_dashes_goes_to_tritonserver(repository: Path) -> None:
    options = parsed(repository, "--policy", "fcfs", "--", "--log-verbose=1", "--", "-x")
    assert options.policy == "fcfs"
    assert options.triton_arguments == ("--log-verbose=1", "--", "-x")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--grpc-port", "0"], ["--grpc-port", "0", "1 and 65535"]),
        (["--http-port", "http"], ["--http-port", "'http'"]),
        (["--max-inflight", "0"], ["--max-inflight", "0", "1 and"]),
        (["--grace", "nan"], ["--grace", "nan"]),
        (["--grace", "-1"], ["--grace", "-1", "0 and"]),
        (["--profile", "gpu"], ["--profile", "gpu", "trtllm"]),
        (["--grpc-port", "8000"], ["must differ", "8000"]),
        (["--model-repository", "/does/not/exist"], ["--model-repository", "/does/not/exist"]),
        (["--polcy", "fcfs"], ["--polcy"]),
        (["--", "--grpc-port=5"], ["--grpc-port", "before the --"]),
        (["--", "--model-config-name", "x"], ["--model-config-name", "--profile"]),
    ],
)
def test_a_wrong_option_is_named_with_its_value_and_limit(
    repository: Path, capsys: pytest.CaptureFixture[str], argv: list[str], words: list[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parsed(repository, *argv)
    assert caught.value.code == 2
    message = capsys.readouterr().err
    assert [word for word in words if word not in message] == []


def test_a_taken_port_is_named_with_the_option_that_changes_it() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen(1)
        port = holder.getsockname()[1]
        messages = taken_ports(ServeOptions(grpc_port=_free_port(), http_port=port, metrics_port=_free_port()))
    assert len(messages) == 1
    assert str(port) in messages[0]
    assert "--http-port" in messages[0]


def test_an_address_of_another_machine_is_refused() -> None:
    messages = taken_ports(ServeOptions(host="192.0.2.1", grpc_port=_free_port()))
    assert len(messages) == 3
    assert "192.0.2.1" in messages[0]


@pytest.mark.parametrize(("host", "url"), [("0.0.0.0", "127.0.0.1:8001"), ("127.0.0.2", "127.0.0.2:8001")])
def test_the_url_is_one_that_this_machine_can_reach(host: str, url: str) -> None:
    assert ServeOptions(host=host).grpc_url == url


def test_help_names_every_option_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parse(["--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for word in (
        "--profile",
        "--policy",
        "--max-inflight",
        "--grpc-port",
        "--grace",
        "--verbose",
        "examples",
        "Ctrl-C",
    ):
        assert word in text


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
