"""The command line of `scripts/serve` as one validated, immutable object. Standard library only."""

from __future__ import annotations

import argparse
import math
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn, get_args

from ssjf_tools.bootstrap import CHECKOUT

Profile = Literal["cpu", "trtllm"]
NGC_TRITON = Path("/opt/tritonserver")
CPU_START_TIMEOUT_S = 180.0
TRTLLM_START_TIMEOUT_S = 1800.0

# tritonserver's options that scripts/serve sets itself: given twice, one of them would win silently.
_OWNED = {
    "--http-port": "--http-port",
    "--grpc-port": "--grpc-port",
    "--metrics-port": "--metrics-port",
    "--http-address": "--host",
    "--grpc-address": "--host",
    "--metrics-address": "--host",
    "--model-repository": "--model-repository",
    "--model-store": "--model-repository",
    "--model-config-name": "--profile",
    "--log-file": "--verbose",
}

_EPILOG = """\
profiles
  cpu      no GPU: tritonserver from the nvidia-pytriton wheel, SmolLM2-135M in OpenVINO, the proxy in ONNX Runtime.
           The first start installs pinned packages into .venv and builds the models into the assets folder.
  trtllm   inside an NVIDIA NGC Triton container with the TensorRT-LLM backend: /opt/tritonserver and its own Python.

examples
  scripts/serve                                        serve on ports 8001 (gRPC), 8000 (HTTP), 8002 (metrics)
  scripts/serve --policy fcfs --max-inflight 4         another order, four requests in the engine at a time
  scripts/serve --grpc-port 9001 --http-port 9000 --metrics-port 9002
  scripts/serve -- --log-verbose=1 --rate-limit=off    everything after -- goes to tritonserver

Ctrl-C or SIGTERM stops: new requests are refused, running ones get --grace seconds to finish. A second Ctrl-C stops at
once. The server's own log is .run/<profile>-<grpc port>/tritonserver.log.

exit codes: 0 stopped on request, 1 the server cannot run (the reason is printed), 2 wrong usage
"""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What to serve and how. Ports are TCP ports of `host`; times are seconds; None leaves a setting to the models."""

    profile: Profile = "cpu"
    host: str = "127.0.0.1"
    grpc_port: int = 8001
    http_port: int = 8000
    metrics_port: int = 8002
    policy: str | None = None
    max_inflight: int | None = None
    assets: Path = CHECKOUT / ".assets"
    model_repository: Path = CHECKOUT / "model_repository"
    backend_threads: int = 256
    grace_s: float = 30.0
    start_timeout_s: float = CPU_START_TIMEOUT_S
    verbose: bool = False
    triton_arguments: tuple[str, ...] = ()

    @property
    def local_host(self) -> str:
        """The address by which this machine reaches the server."""
        return "127.0.0.1" if self.host in ("0.0.0.0", "::", "") else self.host

    @property
    def grpc_url(self) -> str:
        """host:port of the gRPC endpoint, as seen from this machine."""
        return f"{self.local_host}:{self.grpc_port}"

    @property
    def instance(self) -> str:
        """Name of this server's folder under .run/."""
        return f"{self.profile}-{self.grpc_port}"


def parse(argv: Sequence[str]) -> ServeOptions:
    """The options of a command line; on a wrong one argparse prints what is wrong and exits with code 2."""
    ours, triton = _split(argv)
    parser = _parser()
    values = vars(parser.parse_args(ours))
    for argument in triton:
        option = _OWNED.get(argument.split("=", 1)[0])
        if option is not None:
            parser.error(f"{argument.split('=', 1)[0]} is set by scripts/serve: use {option} before the --")
    _check_ports(parser, values["grpc_port"], values["http_port"], values["metrics_port"])
    if values["start_timeout_s"] is None:
        cpu = values["profile"] == "cpu"
        values["start_timeout_s"] = CPU_START_TIMEOUT_S if cpu else TRTLLM_START_TIMEOUT_S
    if not values["model_repository"].is_dir():
        parser.error(f"--model-repository: {values['model_repository']} is not a folder")
    return ServeOptions(**values, triton_arguments=tuple(triton))


def taken_ports(options: ServeOptions) -> list[str]:
    """A message for each port of `options` that another process holds."""
    ports = {
        "--grpc-port": options.grpc_port,
        "--http-port": options.http_port,
        "--metrics-port": options.metrics_port,
    }
    return [
        f"port {port} of {options.host} cannot be used ({reason}): choose another one with {option}"
        for option, port in ports.items()
        if (reason := _why_not(options.host, port))
    ]


def _why_not(host: str, port: int) -> str:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free to a server
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.strerror or str(error)
    return ""


def _split(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    arguments = list(argv)
    if "--" not in arguments:
        return arguments, []
    cut = arguments.index("--")
    return arguments[:cut], arguments[cut + 1 :]


def _check_ports(parser: argparse.ArgumentParser, *ports: int) -> None:
    if len(set(ports)) < len(ports):
        parser.error(f"--grpc-port, --http-port and --metrics-port must differ, they are {', '.join(map(str, ports))}")


def _number_between(kind: type, low: float, high: float) -> type:
    """An argparse type: a number of `kind` from `low` to `high`."""

    def convert(text: str) -> float:
        try:
            value: float = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
        if math.isnan(value) or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g}")
        return value

    return convert  # type: ignore[return-value]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As argparse does it, less the usage text that buries the message."""
        self.exit(2, f"scripts/serve: {message}\nscripts/serve --help explains.\n")


def _parser() -> argparse.ArgumentParser:
    default = ServeOptions()
    parser = _Parser(
        prog="scripts/serve",
        description="Serves an LLM on Triton, shortest job first: same clients, tensors and engine as TensorRT-LLM's "
        "ensemble, only the order of the waiting requests changes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    port = _number_between(int, 1, 65535)
    parser.add_argument(
        "--profile",
        choices=get_args(Profile),
        default="trtllm" if (NGC_TRITON / "bin" / "tritonserver").exists() else "cpu",
        help="which models to run, see below (here: %(default)s)",
    )
    order = parser.add_argument_group("scheduling (default: as the scheduler's configuration says)")
    order.add_argument("--policy", metavar="NAME", help="order of the waiting requests: fcfs, ssjf, ssjf-aging, …")
    order.add_argument(
        "--max-inflight", type=_number_between(int, 1, 100_000), metavar="N", help="requests in the engine at a time"
    )
    network = parser.add_argument_group("network")
    network.add_argument("--host", default=default.host, metavar="ADDRESS", help="bind to (default: %(default)s)")
    for name in ("grpc", "http", "metrics"):
        chosen = getattr(default, f"{name}_port")
        network.add_argument(f"--{name}-port", type=port, default=chosen, metavar="PORT", help=f"default: {chosen}")
    files = parser.add_argument_group("files")
    files.add_argument("--assets", type=_path, default=default.assets, metavar="DIR", help="built models (.assets)")
    files.add_argument(
        "--model-repository", type=_path, default=default.model_repository, metavar="DIR", help="(model_repository)"
    )
    _add_running(parser.add_argument_group("running"), default)
    return parser


def _add_running(running: argparse._ArgumentGroup, default: ServeOptions) -> None:
    running.add_argument(
        "--grace",
        dest="grace_s",
        type=_number_between(float, 0, 86_400),
        default=default.grace_s,
        metavar="SECONDS",
        help="time that running requests get when stopping (default: %(default)g)",
    )
    running.add_argument(
        "--start-timeout",
        dest="start_timeout_s",
        type=_number_between(float, 1, 86_400),
        metavar="SECONDS",
        help=f"give up when not ready by then (default: {CPU_START_TIMEOUT_S:g}; trtllm {TRTLLM_START_TIMEOUT_S:g})",
    )
    running.add_argument(
        "--backend-threads",
        type=_number_between(int, 8, 10_000),
        default=default.backend_threads,
        metavar="N",
        help="threads of Triton's Python backend for calls and responses, per model (default: %(default)s)",
    )
    running.add_argument("--verbose", action="store_true", help="show tritonserver's own log here, too")


def _path(text: str) -> Path:
    return Path(text).expanduser().absolute()
