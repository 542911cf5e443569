"""A filled production repository in a real tritonserver, started with --disable-auto-complete-config.

Once as it is: everything loads but what needs TensorRT-LLM and TensorRT themselves. Once with stand-ins for these two:
then the production configurations of all other models serve.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from ssjf_tools.assets import ensure_assets
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.configure.__main__ import main as configure
from ssjf_tools.serve import layout
from ssjf_tools.serve.options import ServeOptions
from ssjf_tools.serve.server import Server, new_shm_prefix
from ssjf_tools.serve.throwaway import free_ports
from tests.server.asking import ask, inputs, tensors
from tests.unit.configure.engine_folder import CHECKPOINT, ENGINE, write_config

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]

SMOLLM2_VOCABULARY = 49_152
START_S = 60.0
SCRIPTED_LLM = Path(__file__).parent / "scripted_llm"
LLMAPI_MODEL = Path(__file__).parent / "llmapi_model"
MODELS = ("ensemble", "length_predictor", "preprocessing", "scheduler", "tensorrt_llm", "unary")


@dataclass(frozen=True, slots=True)
class Running:
    """A server with a repository, whether or not all of it has loaded."""

    grpc_url: str
    http_url: str
    log: Path

    def index(self) -> dict[str, tuple[str, str]]:
        """Each model's state and the reason for it, as Triton's own repository index says."""
        request = urllib.request.Request(f"{self.http_url}/v2/repository/index", method="POST")
        with urllib.request.urlopen(request, timeout=5) as response:
            entries = json.load(response)
        return {entry["name"]: (entry.get("state", ""), entry.get("reason", "")) for entry in entries}

    def answers(self) -> bool:
        """True as soon as the server's HTTP endpoint is there: after all models have loaded or failed."""
        try:
            with urllib.request.urlopen(f"{self.http_url}/v2/health/live", timeout=2) as response:
                return bool(response.status == 200)
        except OSError:
            return False


def filled(folder: Path, llmapi: bool = False) -> Path:
    """What scripts/configure writes for an engine (or a checkpoint) with SmolLM2's vocabulary."""
    ensure_assets(ServeOptions().assets, lambda _line: None)
    assets = ServeOptions().assets
    if llmapi:
        write_config(folder / "engine", CHECKPOINT, {"vocab_size": SMOLLM2_VOCABULARY})
    else:
        changes = {"pretrained_config.vocab_size": SMOLLM2_VOCABULARY, "build_config.max_batch_size": 4}
        write_config(folder / "engine", ENGINE, changes)
    arguments = ["--engine-dir", str(folder / "engine"), "--tokenizer-dir", str(assets / "smollm2")]
    arguments += ["--flavour", "llmapi", "--llmapi-model", str(LLMAPI_MODEL)] if llmapi else []
    assert configure([*arguments, "--proxy-dir", str(assets / "proxy"), "--out", str(folder)]) == 0
    return folder / "model_repository"


def with_cpu_proxy(repository: Path) -> Path:
    """The repository with the proxy in ONNX Runtime, because there is no GPU here."""
    proxy = CHECKOUT / "model_repository" / "length_predictor" / "configs" / "cpu.pbtxt"
    shutil.copy(proxy, repository / "length_predictor" / "config.pbtxt")
    return repository


@contextmanager
def served(folder: Path, repository: Path, backends: Mapping[str, Path]) -> Iterator[Running]:
    """The repository in the wheel's tritonserver, which stays although models may fail; `backends` are added."""
    grpc, http, metrics = free_ports(3)
    wanted = ("--disable-auto-complete-config", "--exit-on-error=false", "--strict-readiness=false")
    options = ServeOptions(
        profile="trtllm",
        grpc_port=grpc,
        http_port=http,
        metrics_port=metrics,
        model_repository=repository,
        triton_arguments=wanted,
    )
    triton = layout.wheel_triton()
    layout.lay_out_backends(folder / "backends", triton, CHECKOUT / "python_backends")
    for name, path in backends.items():
        (folder / "backends" / name).symlink_to(path)
    prefix = new_shm_prefix("production-test")
    command = layout.server_command(options, triton, folder / "backends", prefix)
    environment = layout.server_environment(options, triton, "token", os.environ)
    log = folder / "tritonserver.log"
    server = Server(command, environment, log, prefix)
    running = Running(options.grpc_url, f"http://127.0.0.1:{http}", log)
    try:
        deadline = time.monotonic() + START_S
        while not running.answers():
            assert server.exit_code() is None, log.read_text(errors="replace")
            assert time.monotonic() < deadline, log.read_text(errors="replace")
            time.sleep(0.1)
        yield running
    finally:
        server.stop()


def test_only_the_two_models_that_need_nvidia_software_fail(tmp_path: Path) -> None:
    with served(tmp_path, filled(tmp_path), {}) as running:
        index, log = running.index(), running.log.read_text(errors="replace")
    assert set(index) == set(MODELS)
    assert {name for name, (state, _) in index.items() if state == "READY"} == {"preprocessing", "scheduler", "unary"}
    assert "unable to find backend library for backend 'tensorrtllm'" in index["tensorrt_llm"][1]
    reason = index["length_predictor"][1]
    assert "tensorrt" in reason or "GPU" in reason, reason
    # The ensemble itself was taken: it waits for the one model among its steps that is not there.
    assert "ensemble 'ensemble' depends on 'length_predictor' which has no loaded version" in log
    assert "TYPE_" not in log.partition("failed to load")[2].partition("server.cc")[0]  # no tensor was complained of


def test_with_stand_ins_for_those_two_the_production_configurations_serve(tmp_path: Path) -> None:
    repository = with_cpu_proxy(filled(tmp_path))
    shutil.copy(SCRIPTED_LLM / "config.pbtxt", repository / "tensorrt_llm" / "config.pbtxt")
    with served(tmp_path, repository, {"scripted_llm": SCRIPTED_LLM}) as running:
        assert {name: state for name, (state, _) in running.index().items()} == dict.fromkeys(MODELS, "READY")
        prompt = tensors("What is the capital of France?", 5, stream=np.array([[True]]))
        for door in ("ensemble", "scheduler"):
            answer = ask(running.grpc_url, door, prompt)
            assert (answer.error, answer.finals) == (None, 1)
            assert answer.text
        with grpcclient.InferenceServerClient(running.grpc_url) as client:
            result = client.infer("unary", inputs(tensors("Say hi.", 3)))
        assert result.as_numpy("text_output").size == 1
        assert result.as_numpy("predicted_tokens")[0, 0] > 0
        too_long = ask(running.grpc_url, "ensemble", tensors("hi", 4096))
    assert "max_tokens is 4096, allowed: 1 to 4095" in str(too_long.error)  # what the engine's config.json says


def test_the_llmapi_flavour_serves_with_a_stand_in_for_nvidias_model(tmp_path: Path) -> None:
    """Its configuration is ours to the letter here: only model.py and helpers.py are not NVIDIA's."""
    repository = with_cpu_proxy(filled(tmp_path, llmapi=True))
    with served(tmp_path, repository, {}) as running:
        assert {name: state for name, (state, _) in running.index().items()} == dict.fromkeys(MODELS, "READY")
        for door in ("ensemble", "scheduler"):
            answer = ask(running.grpc_url, door, tensors("What is a queue?", 4, stream=np.array([[True]])))
            assert (answer.error, answer.finals) == (None, 1)
            assert answer.text == "word word word word"
            whole = ask(running.grpc_url, door, tensors("What is a queue?", 3))
            assert whole.text == "word word word"
        refused = ask(running.grpc_url, "ensemble", tensors("hi", 3, beam_width=np.array([[2]], np.int32)))
    assert "the llmapi engine cannot honour it" in str(refused.error)
