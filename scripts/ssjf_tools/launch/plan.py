"""From a filled repository to a command line: how many processes, and what each of them is told. Starts nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ssjf_tools.configure.engine import read_engine
from ssjf_tools.configure.facts import ConfigureError

ENGINE = "tensorrt_llm"
_BACKEND = re.compile(r'^backend: "([^"]*)"', re.MULTILINE)
_ENGINE_PATH = re.compile(r'^parameters \{ key: "gpt_model_path" value \{ string_value: "([^"]*)" \} \}', re.MULTILINE)
# Of a rank that only lends its GPU: it waits inside the engine's backend for work and serves nobody.
_SILENT = ("--allow-http=false", "--allow-grpc=false", "--allow-metrics=false")
_NOT_FOR_RANKS = ("--http-", "--grpc-", "--metrics-", "--allow-", "--model-control-mode", "--load-model")
_SHM_PREFIX = re.compile(r"(,shm-region-prefix-name=)(.*)")


STOP_S = "5"


@dataclass(frozen=True, slots=True)
class EngineProcesses:
    """What the repository's engine needs. `processes` is its MPI world size; `backend` the Triton backend's name."""

    backend: str
    processes: int


def engine_processes(repository: Path) -> EngineProcesses:
    """Read from the engine model's config.pbtxt and the engine's config.json. Raises ConfigureError naming the file.

    The llmapi flavour (backend `python`) is one process: TensorRT-LLM starts its workers by itself.
    """
    path = repository / ENGINE / "config.pbtxt"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigureError(f"{path}: {error.strerror} (--model-repository; scripts/configure writes one)") from None
    backend = _BACKEND.search(text)
    if backend is None:
        raise ConfigureError(f"{path}: key backend is missing")
    if backend[1] != "tensorrtllm":
        return EngineProcesses(backend[1], 1)
    engine = _ENGINE_PATH.search(text)
    if engine is None:
        raise ConfigureError(f"{path}: parameter gpt_model_path is missing")
    return EngineProcesses(backend[1], read_engine(Path(engine[1])).world_size)


def mpirun_command(server: Sequence[str], processes: int, as_root: bool, mpirun: str = "mpirun") -> list[str]:
    """One mpirun for all ranks. Rank 0 is `server`, the whole of Triton; the others load the engine model alone.

    Every rank gets our backend folder and shared memory of its own; NVIDIA's launcher passes no backend folder. mpirun
    hands a SIGTERM to all ranks, and ends all when one ends. It kills what is left `STOP_S` later and always waits that
    long; its default of one second is less than a drained tritonserver needs.
    """
    command = [mpirun, *(["--allow-run-as-root"] if as_root else []), "--mca", "odls_base_sigkill_timeout", STOP_S]
    for rank in range(processes):
        command += [":"] if rank else []
        command += ["-n", "1", *(server if rank == 0 else _other_rank(server, rank))]
    return command


def _other_rank(server: Sequence[str], rank: int) -> list[str]:
    program, *arguments = server
    kept = [
        _SHM_PREFIX.sub(rf"\g<1>\g<2>rank{rank}-", argument)
        for argument in arguments
        if not argument.startswith(_NOT_FOR_RANKS)
    ]
    return [program, *kept, *_SILENT, "--model-control-mode=explicit", f"--load-model={ENGINE}"]
