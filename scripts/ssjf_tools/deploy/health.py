"""`scripts/health`: one look at a server, for container health checks and Kubernetes probes.

Triton's own readiness stays true when a Python process of a model has died (before release 26.01), and knows nothing of
a scheduler that drains. So this asks every model for a sign of life, and the scheduler for its state.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from ssjf_client import Client, ClientError, Status
from ssjf_tools.deploy.asking import connection_parser, control_token
from ssjf_tools.serve.components import ENGINE, MODELS, silent_models
from ssjf_tools.serve.watch import is_alive

Question = Literal["live", "ready"]
# Counters that move only when answers are made; asking for them moves none.
_PROGRESS = ("dispatched", "finished", "engine_responses")
# The scheduler's event loop answers this in milliseconds, whatever the engine does.
STATUS_TIMEOUT_S = 2.0

_EPILOG = """\
live   every model gives a sign of life within --timeout. An engine that is full may let even our tiny request wait:
       that counts as alive as long as answers are being made. Use for liveness probes and Docker's HEALTHCHECK.
ready  the server has loaded its models, the scheduler takes requests (it does not drain) and reaches an engine. Use for
       startup and readiness probes and for load balancers.

examples
  scripts/health                                       of the server on this machine
  scripts/health --ready --url scheduler:8001
  scripts/health --models tensorrt_llm                 a server that holds the engine only

exit codes: 0 well, 1 not well (the reason is printed), 2 wrong usage
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What to look at: the server's address, the models that it holds, seconds to wait for each, the control token."""

    url: str
    models: frozenset[str]
    timeout_s: float
    token: str | None = None


def why_not_live(look: Look) -> str:
    """Why the server is not alive; empty: it is."""
    with grpc.insecure_channel(look.url) as channel:
        triton = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        before = _progress(look, triton)
        silent = silent_models(triton, look.timeout_s) & look.models
        if is_alive(silent, moved=bool(silent) and _progress(look, triton) != before):
            return ""
        return f"no answer within {look.timeout_s:g} s from {', '.join(sorted(silent))}"


def why_not_ready(look: Look) -> str:
    """Why the server should get no requests; empty: it should."""
    with grpc.insecure_channel(look.url) as channel:
        triton = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for model in sorted(look.models):
            reason = _why_not_loaded(triton, model, look.timeout_s)
            if reason:
                return reason
    return _why_not_accepting(look) if "scheduler" in look.models else ""


def _why_not_loaded(triton: Any, model: str, timeout_s: float) -> str:
    try:
        if triton.ModelReady(service_pb2.ModelReadyRequest(name=model), timeout=timeout_s).ready:
            return ""
    except grpc.RpcError as error:
        return f"{model}: {_words(error)}"
    return f"{model} is not loaded"


def _why_not_accepting(look: Look) -> str:
    try:
        status = _status(look)
    except ClientError as error:
        return f"the scheduler does not answer: {' '.join(str(error).split())}"
    if status.ready is False:
        return "the scheduler is draining"
    if status.extra.get("engines_up") == 0:
        return "the scheduler reaches no engine"
    return ""


def _progress(look: Look, triton: Any) -> tuple[Any, ...]:
    """Numbers that grow while answers are made: the scheduler's, or Triton's count of the engine's responses."""
    if "scheduler" in look.models:
        try:
            values = _status(look).as_dict()
        except ClientError:
            return ()
        return tuple(values.get(name) for name in _PROGRESS)
    try:
        request = service_pb2.ModelStatisticsRequest(name=ENGINE)
        (stats,) = triton.ModelStatistics(request, timeout=look.timeout_s).model_stats
    except (grpc.RpcError, ValueError):
        return ()
    return tuple(sorted((key, entry.success.count) for key, entry in stats.response_stats.items()))


def _status(look: Look) -> Status:
    with Client(look.url, timeout_s=min(look.timeout_s, STATUS_TIMEOUT_S)) as client:
        return client.status(look.token)


def _words(error: grpc.RpcError) -> str:
    details = getattr(error, "details", error.__str__)
    return " ".join(str(details()).split())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/health",
        description="Says whether a server is alive, or ready for requests.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[connection_parser()],
    )
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--live", dest="question", action="store_const", const="live", help="the default")
    question.add_argument("--ready", dest="question", action="store_const", const="ready")
    parser.set_defaults(question="live")
    parser.add_argument(
        "--models",
        default=",".join(sorted(MODELS)),
        metavar="NAME,…",
        help="the models that this server holds (default: %(default)s)",
    )
    parser.add_argument("--timeout", type=float, default=4.0, metavar="SECONDS", help="default: %(default)g")
    return parser


def main(argv: Sequence[str]) -> int:
    """Prints and returns the verdict."""
    parser = _parser()
    options = parser.parse_args(argv)
    models = frozenset(name.strip() for name in options.models.split(","))
    if not models <= MODELS:
        parser.error(f"--models: {', '.join(sorted(models - MODELS))}, expected some of {', '.join(sorted(MODELS))}")
    if not options.timeout > 0:
        parser.error(f"--timeout is {options.timeout:g}, expected more than 0 seconds")
    look = Look(options.url, models, options.timeout, control_token(options.token, options.url))
    ask: Callable[[Look], str] = why_not_live if options.question == "live" else why_not_ready
    reason = ask(look)
    print(reason or options.question)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
