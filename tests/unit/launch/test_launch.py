"""The command that starts a filled repository: processes as the engine's config.json says, each told what it needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ssjf_tools.configure.__main__ import main as configure
from ssjf_tools.launch import __main__ as launch
from ssjf_tools.launch.plan import mpirun_command
from ssjf_tools.serve import layout
from tests.unit.byte_tokenizer import write_tokenizer_dir
from tests.unit.configure.engine_folder import CHECKPOINT, ENGINE, write_config, write_llmapi_model


def fill(root: Path, world_size: int = 1, llmapi: bool = False) -> Path:
    changes = {} if llmapi else {"pretrained_config.mapping.world_size": world_size}
    write_config(root / "engine", CHECKPOINT if llmapi else ENGINE, changes)
    arguments = ["--engine-dir", str(root / "engine"), "--out", str(root)]
    arguments += ["--tokenizer-dir", str(write_tokenizer_dir(root / "tokenizer"))]
    if llmapi:
        arguments += ["--flavour", "llmapi", "--llmapi-model", str(write_llmapi_model(root / "nvidia"))]
    assert configure(arguments) == 0
    return root / "model_repository"


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation like that of NVIDIA's image, with an mpirun; the run folder is the test's own."""
    root = tmp_path / "opt"
    for path in (
        "bin/tritonserver",
        "backends/python/libtriton_python.so",
        "backends/python/triton_python_backend_utils.py",
        f"backends/python/{layout.STUB}",
        "backends/tensorrtllm/libtriton_tensorrtllm.so",
        "bin/mpirun",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("#!/bin/sh\n")
        (root / path).chmod(0o755)
    triton = layout.system_triton(root)
    monkeypatch.setattr(layout, "system_triton", lambda: triton)
    monkeypatch.setattr(layout, "run_folder", lambda _options: tmp_path / "run")
    monkeypatch.setattr(launch, "taken_ports", lambda _options: [])
    monkeypatch.setenv("PATH", f"{root / 'bin'}:/usr/bin:/bin")
    return root


def ranks(command: list[str]) -> list[list[str]]:
    """The program and arguments of each rank of an mpirun command."""
    found: list[list[str]] = [[]]
    for word in command:
        if word == ":":
            found.append([])
        else:
            found[-1].append(word)
    return [rank[rank.index("1") + 1 :] for rank in found]


def started(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """What the process would have become."""
    seen: list[Any] = []
    monkeypatch.setattr("os.execve", lambda _path, command, environment: seen.append((command, environment)))
    launch.main(list(arguments))
    assert len(seen) == 1
    return seen[0][0], seen[0][1]


def test_every_rank_has_our_backends_its_threads_and_memory_of_its_own(
    tmp_path: Path, container: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = fill(tmp_path, world_size=4)
    more = ["--max-inflight", "7", "--", "--log-verbose=1"]
    command, environment = started(monkeypatch, "--model-repository", str(repository), *more)
    assert command[0] == str(container / "bin" / "mpirun")
    assert len(ranks(command)) == 4
    for rank in ranks(command):
        assert rank[0] == str(container / "bin" / "tritonserver")
        assert f"--model-repository={repository}" in rank
        assert f"--backend-directory={tmp_path / 'run' / 'backends'}" in rank
        assert "--backend-config=ssjf,thread-pool-size=256" in rank
        assert "--disable-auto-complete-config" in rank
        assert "--log-verbose=1" in rank
    prefixes = [{word for word in rank if "shm-region-prefix-name" in word} for rank in ranks(command)]
    assert not any(first & second for first in prefixes for second in prefixes if first is not second)
    assert environment["SSJF_MAX_INFLIGHT"] == "7"
    assert (tmp_path / "run" / "backends" / "tensorrtllm" / "libtriton_tensorrtllm.so").is_file()
    state = json.loads((tmp_path / "run" / "serve.json").read_text())
    assert state["control_token"] == environment["SSJF_CONTROL_TOKEN"]


def test_only_rank_0_serves_and_loads_everything(
    tmp_path: Path, container: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command, _ = started(monkeypatch, "--model-repository", str(fill(tmp_path, world_size=2)))
    first, second = ranks(command)
    assert "--grpc-port=8001" in first
    assert not any(word.startswith("--load-model") for word in first)
    assert {"--allow-grpc=false", "--allow-http=false", "--load-model=tensorrt_llm"} <= set(second)
    assert not any("restricted" in word or "-port=" in word for word in second)


def test_root_is_allowed_only_to_root() -> None:
    assert mpirun_command(["triton"], 2, as_root=True)[:2] == ["mpirun", "--allow-run-as-root"]
    assert mpirun_command(["triton"], 1, as_root=False)[-3:] == ["-n", "1", "triton"]


def test_one_gpu_goes_to_serve(tmp_path: Path, container: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served: list[list[str]] = []

    def serve(arguments: list[str]) -> int:
        served.append(arguments)
        return 0

    monkeypatch.setattr(launch, "serve", serve)
    assert launch.main(["--model-repository", str(fill(tmp_path)), "--grace", "60"]) == 0
    assert served == [
        ["--profile", "trtllm", "--model-repository", str(tmp_path / "model_repository"), "--grace", "60", "--",
         "--disable-auto-complete-config"]
    ]  # fmt: skip


def test_llmapi_is_one_process_that_starts_its_workers_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["--dry-run", "--model-repository", str(fill(tmp_path, llmapi=True))]) == 0
    assert "backend python, 1 process\nscripts/serve --profile trtllm" in capsys.readouterr().out


def test_a_dry_run_shows_the_command_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(layout, "run_folder", lambda _options: tmp_path / "run")
    monkeypatch.setenv("SSJF_ADMIN_KEY", "key-of-the-house")
    assert launch.main(["--dry-run", "--model-repository", str(fill(tmp_path, world_size=2))]) == 0
    printed = capsys.readouterr().out
    assert "-n 1 /opt/tritonserver/bin/tritonserver" in printed
    assert "SSJF_CONTROL_TOKEN=…" in printed
    assert "key-of-the-house" not in printed
    assert not (tmp_path / "run" / "serve.json").exists()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("model_repository/tensorrt_llm/config.pbtxt", "model_repository/tensorrt_llm/config.pbtxt: No such file"),
        ("engine/config.json", "engine/config.json: No such file"),
        ("engine/rank1.engine", "engine/rank1.engine: no such file, but key pretrained_config.mapping.world_size"),
        ("opt/bin/mpirun", "mpirun is not on PATH"),
        ("opt/backends/tensorrtllm/libtriton_tensorrtllm.so", "backends/tensorrtllm does not exist"),
    ],
)
def test_what_is_missing_is_named(
    tmp_path: Path,
    container: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: str,
    said: str,
) -> None:
    repository = fill(tmp_path, world_size=2)
    (tmp_path / damage).unlink()
    if "libtriton" in damage:
        (tmp_path / damage).parent.rmdir()
        triton = layout.Triton(container / "bin" / "tritonserver", container / "backends" / "python", container)
        monkeypatch.setattr(layout, "system_triton", lambda: triton)
    monkeypatch.setenv("PATH", str(container / "bin"))
    assert launch.main(["--model-repository", str(repository)]) == 1
    assert said in capsys.readouterr().err


def test_outside_the_container_only_a_dry_run_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch.main(["--model-repository", str(fill(tmp_path, world_size=2))]) == 1
    assert "profile trtllm needs /opt/tritonserver" in capsys.readouterr().err
