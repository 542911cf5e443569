"""A server for as long as a `with` block: for tests and benchmarks. Free ports, its own folder, no supervisor."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ssjf_tools.assets import ensure_assets
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve import layout
from ssjf_tools.serve.options import ServeOptions
from ssjf_tools.serve.processes import resident_mib
from ssjf_tools.serve.server import Server, new_shm_prefix

_START_TIMEOUT_S = 120.0


class ServerDidNotStart(Exception):
    """The text ends with the server's last log lines."""


@dataclass(frozen=True, slots=True)
class Throwaway:
    """A running server. `token` opens the scheduler's control requests."""

    server: Server
    grpc_url: str
    http_url: str
    metrics_url: str
    token: str
    log: Path

    def resident_mib(self) -> float:
        """Memory of the server and its Python processes, MiB."""
        return resident_mib((self.server.pid, *self.server.stubs().values()))


@contextmanager
def throwaway_server(
    environment: Mapping[str, str] | None = None,
    models: Mapping[str, Path] | None = None,
    triton_arguments: tuple[str, ...] = (),
) -> Iterator[Throwaway]:
    """The CPU profile on free loopback ports; ends with everything that it started when the block is left.

    `environment` adds variables (`SSJF_<KEY>` settings). `models` replaces models of the repository by folders that
    hold a `config.pbtxt` and, as a backend of the folder's name, a `model.py`. Raises ServerDidNotStart.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ssjf-server-")))
        grpc, http, metrics = free_ports(3)
        options = ServeOptions(
            grpc_port=grpc,
            http_port=http,
            metrics_port=metrics,
            model_repository=_repository(folder / "models", models or {}),
            triton_arguments=triton_arguments,
        )
        ensure_assets(options.assets, lambda _line: None)
        triton = layout.wheel_triton()
        layout.lay_out_backends(folder / "backends", triton, CHECKOUT / "python_backends")
        for replacement in (models or {}).values():
            (folder / "backends" / replacement.name).symlink_to(replacement)
        token = secrets.token_urlsafe(12)
        variables = layout.server_environment(options, triton, token, os.environ) | dict(environment or {})
        prefix = new_shm_prefix("throwaway")
        command = layout.server_command(options, triton, folder / "backends", prefix)
        log = folder / "tritonserver.log"
        server = Server(command, variables, log, prefix)
        stack.callback(server.stop)
        http_url = f"http://127.0.0.1:{http}"
        _wait_until_ready(server, http_url, log)
        yield Throwaway(server, options.grpc_url, http_url, f"http://127.0.0.1:{metrics}/metrics", token, log)


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago; all sockets are open at once, so that they differ."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def _repository(folder: Path, models: Mapping[str, Path]) -> Path:
    """The model repository; with replacements, a folder of links to its models and to those."""
    ours = CHECKOUT / "model_repository"
    if not models:
        return ours
    folder.mkdir()
    for model in ours.iterdir():
        (folder / model.name).symlink_to(models.get(model.name, model), target_is_directory=True)
    return folder


def _wait_until_ready(server: Server, http_url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and server.exit_code() is None:
        try:
            with urllib.request.urlopen(f"{http_url}/v2/health/ready", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    lines = log.read_text(errors="replace").splitlines()[-30:]
    raise ServerDidNotStart("\n".join(["tritonserver did not become ready; its last lines:", *lines]))
