"""Where tritonserver is, and how it is started: backend folder, environment, command line."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve.options import NGC_TRITON, ServeOptions

STUB = "triton_python_backend_stub"
# An instance's shared memory at start; the default of 1 MiB grows under load, and growing needs a pause.
SHARED_MEMORY_BYTES = 4 * 1024 * 1024
EXIT_TIMEOUT_S = 5
# Triton's names for what no client of an LLM needs: loading models, mapping memory into the server, writing traces,
# changing what is logged. All of it wants a key in this header.
RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")
ADMIN_HEADER = "ssjf-admin"
_RESTRICTIONS = ("--grpc-restricted-protocol", "--http-restricted-api")
_FOR_RELOADING = ("--model-control-mode", *_RESTRICTIONS)


class LayoutError(Exception):
    """Triton or something that it needs is not on this machine; the text says what to install."""


@dataclass(frozen=True, slots=True)
class Triton:
    """An installation of tritonserver. `stub` runs Python backends; `backends` are folders to offer besides ours."""

    server: Path
    python_backend: Path
    stub: Path
    libraries: tuple[Path, ...] = ()
    backends: tuple[Path, ...] = ()


def wheel_triton() -> Triton:
    """The tritonserver in the nvidia-pytriton wheel of the running environment. Raises LayoutError."""
    spec = importlib.util.find_spec("pytriton")
    if spec is None or spec.origin is None:
        raise LayoutError("nvidia-pytriton is not installed in this environment: run scripts/serve, not this module")
    folder = Path(spec.origin).parent / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = folder / "python_backend_stubs" / version / STUB
    if not stub.is_file():
        known = ", ".join(sorted(path.name for path in stub.parent.parent.iterdir()))
        raise LayoutError(f"Triton's Python backend has no stub for Python {version}, only for {known}")
    libraries = (Path(str(sysconfig.get_config_var("LIBDIR"))), folder.parent.parent / "nvidia_pytriton.libs")
    return Triton(folder / "bin" / "tritonserver", folder / "backends" / "python", stub, libraries)


def system_triton(root: Path = NGC_TRITON) -> Triton:
    """The tritonserver of an NGC container. Raises LayoutError when there is none."""
    server, python_backend = root / "bin" / "tritonserver", root / "backends" / "python"
    for path in (server, python_backend / STUB):
        if not path.is_file():
            raise LayoutError(
                f"profile trtllm needs {path}: run inside an NVIDIA NGC Triton container with TensorRT-LLM"
            )
    others = tuple(sorted(path for path in python_backend.parent.iterdir() if path.is_dir() and path != python_backend))
    return Triton(server, python_backend, python_backend / STUB, backends=others)


def lay_out_backends(folder: Path, triton: Triton, ours: Path) -> None:
    """Fills `folder` anew for `--backend-directory`.

    NOTE: the Python backend's three files are copies, because Triton refuses a linked library as one that 'escapes';
    a backend's whole folder may be a link.
    """
    shutil.rmtree(folder, ignore_errors=True)
    python = folder / "python"
    python.mkdir(parents=True)
    for source in (
        triton.python_backend / "libtriton_python.so",
        triton.python_backend / "triton_python_backend_utils.py",
        triton.stub,
    ):
        shutil.copy(source, python / source.name)
    own = [path for path in sorted(ours.iterdir()) if (path / "model.py").is_file()]
    for path in (*own, *triton.backends):
        link = folder / path.name
        if not link.exists():
            link.symlink_to(path, target_is_directory=True)


def check_stub(triton: Triton, environment: Mapping[str, str]) -> None:
    """Raises LayoutError when the stub's shared libraries (libpython above all) cannot be loaded here."""
    done = subprocess.run([triton.stub], env=environment, capture_output=True, text=True, check=False)
    if "error while loading shared libraries" in done.stderr:
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise LayoutError(
            f"{done.stderr.strip()}\nThe Python backend needs the shared library of Python {version}. "
            f"On Debian or Ubuntu: apt-get install libpython{version}; with pyenv: build Python with --enable-shared."
        )


def server_environment(
    options: ServeOptions, triton: Triton, control_token: str, base: Mapping[str, str]
) -> dict[str, str]:
    """The environment of tritonserver: `base`, the libraries, and what our models read (`SSJF_...`).

    NOTE: Triton's stub starts Python isolated, so PYTHONPATH is not read. As Python itself does, it finds the virtual
    environment by the `python3` that comes first on PATH.
    """
    environment = dict(base)
    environment.pop("PYTHONHOME", None)
    if triton.libraries:
        old = environment.get("LD_LIBRARY_PATH", "")
        environment["LD_LIBRARY_PATH"] = os.pathsep.join([*map(str, triton.libraries), *([old] if old else [])])
    environment["PATH"] = os.pathsep.join([str(Path(sys.prefix) / "bin"), environment.get("PATH", os.defpath)])
    environment.setdefault("SSJF_ENGINE_URL", options.grpc_url)
    environment.setdefault("SSJF_SELF_URL", options.grpc_url)
    environment["SSJF_ASSETS"] = str(options.assets)
    environment["SSJF_CONTROL_TOKEN"] = control_token
    if options.policy is not None:
        environment["SSJF_POLICY"] = options.policy
    if options.max_inflight is not None:
        environment["SSJF_MAX_INFLIGHT"] = str(options.max_inflight)
    return environment


def can_reload(options: ServeOptions) -> bool:
    """Whether single models may be loaded again: not in production, where a server loads its models once."""
    return options.profile == "cpu" and not any(a.startswith(_FOR_RELOADING) for a in options.triton_arguments)


def restrictions(key: str) -> list[str]:
    """Tritonserver's options that keep everybody who does not know `key` from its administration."""
    restricted = f"{','.join(RESTRICTED)}:{ADMIN_HEADER}={key}"
    return [f"--grpc-restricted-protocol={restricted}", f"--http-restricted-api={restricted}"]


def server_command(
    options: ServeOptions, triton: Triton, backends: Path, shm_prefix: str, admin_key: str = ""
) -> list[str]:
    """Tritonserver's command line; with an `admin_key` its administration, loading models again say, wants that key.

    The caller's own settings for the Python backends replace ours of the same name, and so do own restrictions.
    """
    command = [
        str(triton.server),
        f"--model-repository={options.model_repository}",
        f"--backend-directory={backends}",
        f"--http-address={options.host}",
        f"--grpc-address={options.host}",
        f"--metrics-address={options.host}",
        f"--http-port={options.http_port}",
        f"--grpc-port={options.grpc_port}",
        f"--metrics-port={options.metrics_port}",
    ]
    if options.profile == "cpu":
        command += ["--model-config-name=cpu", "--allow-gpu-metrics=false"]
    theirs = options.triton_arguments
    if admin_key and not any(a.startswith(_RESTRICTIONS) for a in theirs):
        command += restrictions(admin_key)
        if can_reload(options):  # all are loaded at the start, and each again when it is asked for
            command += ["--model-control-mode=explicit", "--load-model=*"]
    if not any(argument.startswith("--exit-timeout-secs") for argument in theirs):
        command.append(f"--exit-timeout-secs={EXIT_TIMEOUT_S}")
    settings = {
        "thread-pool-size": options.backend_threads,
        "shm-default-byte-size": SHARED_MEMORY_BYTES,
        "shm-region-prefix-name": shm_prefix,
    }
    # NOTE: each Python-based backend reads the settings under its own name; those of `python` are for that one alone.
    for backend in python_backend_names(backends):
        ours = {f"--backend-config={backend},{name}=": value for name, value in settings.items()}
        command += [f"{key}{value}" for key, value in ours.items() if not any(a.startswith(key) for a in theirs)]
    return [*command, *theirs]


def python_backend_names(backends: Path) -> list[str]:
    """The backends in this folder that Triton's Python backend runs: itself, and every one that is a `model.py`."""
    return ["python", *sorted(path.parent.name for path in backends.glob("*/model.py"))]


def run_folder(options: ServeOptions, checkout: Path = CHECKOUT) -> Path:
    """This server's folder for what lives only while it runs (backends, log, state)."""
    return checkout / ".run" / options.instance
