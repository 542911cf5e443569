"""`python -m ssjf_tools.serve`: from the command line to a supervised server.

Options are read before anything is installed, so that `--help` and mistakes are answered at once; then the process
continues in the environment of its profile.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ssjf_tools.bootstrap import CHECKOUT, BootstrapError, enter
from ssjf_tools.serve import layout
from ssjf_tools.serve.layout import LayoutError, Triton
from ssjf_tools.serve.messages import ready, say
from ssjf_tools.serve.options import ServeOptions, parse, taken_ports
from ssjf_tools.serve.stopping import StopSignals

if TYPE_CHECKING:
    from ssjf_tools.serve.server import Server


def main(argv: Sequence[str]) -> int:
    """Serves until told to stop; returns the exit code."""
    options = parse(argv)
    taken = taken_ports(options)
    if taken:
        print("\n".join(f"scripts/serve: {line}" for line in taken), file=sys.stderr)
        return 1
    try:
        if options.profile == "cpu":
            enter("serve", "ssjf_tools.serve", argv)
        return serve(options)
    except ModuleNotFoundError as error:  # profile trtllm runs in the container's own Python
        print(f"scripts/serve: {sys.executable} lacks {error.name}: pip install 'tritonclient[grpc]'", file=sys.stderr)
        return 1
    except (BootstrapError, LayoutError) as error:
        print(f"scripts/serve: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def serve(options: ServeOptions) -> int:
    """Everything after the options, in the right Python. Raises LayoutError."""
    # NOTE: imported here, because they need packages that the first start has yet to install.
    from ssjf_tools.serve.components import ENGINE  # noqa: PLC0415
    from ssjf_tools.serve.health import CPU_PATIENCE, TRTLLM_PATIENCE, Probe  # noqa: PLC0415
    from ssjf_tools.serve.log import ServerLog  # noqa: PLC0415
    from ssjf_tools.serve.server import Server, new_shm_prefix  # noqa: PLC0415
    from ssjf_tools.serve.supervisor import RELOADABLE, Plan, Supervisor  # noqa: PLC0415

    triton = layout.wheel_triton() if options.profile == "cpu" else layout.system_triton()
    if options.profile == "cpu":
        build_assets(options.assets)
    token = os.environ.get("SSJF_CONTROL_TOKEN") or secrets.token_urlsafe(24)
    admin_key = os.environ.get("SSJF_ADMIN_KEY") or secrets.token_hex(16)
    environment = layout.server_environment(options, triton, token, os.environ)
    layout.check_stub(triton, environment)
    folder = prepare_folder(options, triton)
    log = ServerLog(folder / "tritonserver.log")

    def start() -> Server:
        prefix = new_shm_prefix(options.instance)
        command = layout.server_command(options, triton, folder / "backends", prefix, admin_key)
        return Server(command, environment, log.path, prefix)

    greeted = False

    def on_ready(server: Server) -> None:
        nonlocal greeted
        write_state(folder / "serve.json", options, server.pid, token)
        say("ready again") if greeted else print(
            ready(options, _short(Path(sys.executable)), _short(folder / "serve.json")), flush=True
        )
        greeted = True

    signals = StopSignals()
    patience = CPU_PATIENCE if options.profile == "cpu" else TRTLLM_PATIENCE
    plan = Plan(
        start,
        lambda server: Probe(options.grpc_url, token, admin_key, patience, lambda: server.cpu_seconds(ENGINE)),
        log,
        patience,
        options.start_timeout_s,
        options.grace_s,
        RELOADABLE if layout.can_reload(options) else frozenset(),
        options.verbose,
    )
    say(f"starting tritonserver, profile {options.profile}; its log is {_short(log.path)}")
    try:
        return Supervisor(plan, signals, say).run(on_ready)
    finally:
        (folder / "serve.json").unlink(missing_ok=True)


def build_assets(folder: Path) -> None:
    """The models of the CPU profile, built on first use and whenever their builder has changed. Raises LayoutError."""
    from ssjf_tools.assets import ensure_assets  # noqa: PLC0415

    begun = time.monotonic()
    try:
        ensure_assets(folder, say)
    except Exception as error:  # whatever it is, the user is to read what failed, not a stack trace
        raise LayoutError(f"the models cannot be built in {folder}: {type(error).__name__}: {error}") from error
    if time.monotonic() - begun > 2:
        say(f"models are built ({time.monotonic() - begun:.1f} s), kept in {_short(folder)}")


def prepare_folder(options: ServeOptions, triton: Triton) -> Path:
    """This server's folder under .run/, with the backends in it; the log of the run before is kept beside it."""
    folder = layout.run_folder(options)
    layout.lay_out_backends(folder / "backends", triton, CHECKOUT / "python_backends")
    log = folder / "tritonserver.log"
    if log.exists():
        log.replace(folder / "tritonserver.log.1")
    return folder


def write_state(path: Path, options: ServeOptions, server_pid: int, token: str) -> None:
    """What tools on this machine need to find the server; readable by its owner only, because of the token."""
    state = {
        "pid": os.getpid(),
        "server_pid": server_pid,
        "grpc_url": options.grpc_url,
        "http_url": f"http://{options.local_host}:{options.http_port}",
        "metrics_url": f"http://{options.local_host}:{options.metrics_port}/metrics",
        "control_token": token,
    }
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(state, file, indent=2)


def _short(path: Path) -> str:
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
