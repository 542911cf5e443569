"""The command line: `ssjf` or `python -m ssjf_client`.

Answers go to stdout, errors in one line to stderr. Exit codes: 0 done, 1 server error, 2 bad request or usage,
3 server unavailable, 4 time limit passed, 5 cancelled by the server, 130 interrupted (the request is cancelled).
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Final, cast, get_args

from .client import DEFAULT_TIMEOUT_S, Client
from .connection import TlsOptions
from .errors import Cancelled, ClientError, DeadlineExceeded, InvalidRequest, ServerUnavailable
from .exchange import Generation
from .request import GenerateRequest
from .status import Status
from .top import run_top
from .wire import Door, SettingValue

__all__ = ["main"]

FindToken = Callable[[str], str | None]
"""The control token of the server at a URL, or None."""

DEFAULT_URL: Final = "127.0.0.1:8001"
_NONE: Final = "none"
_INTERRUPTED: Final = 130
_EXIT_CODES: Final[tuple[tuple[type[ClientError], int], ...]] = (
    (InvalidRequest, 2),
    (ServerUnavailable, 3),
    (DeadlineExceeded, 4),
    (Cancelled, 5),
)

_LIMITS: Final = (
    "max_inflight",
    "over_dispatch",
    "max_inflight_tokens",
    "batching",
    "batch_size",
    "max_wait_s",
    "max_queue",
    "max_queue_bytes",
)

_EPILOG: Final = """\
examples:
  ssjf generate "What is the capital of France?" --max-tokens 40
  ssjf generate --stream --door ensemble "Tell me a story."
  cat question.txt | ssjf generate - --json
  ssjf status
  ssjf policy fcfs --token "$TOKEN"
  ssjf policy ssjf-aging --set aging_rate=4
  ssjf limits --max-inflight 32 --max-inflight-tokens none

environment:
  SSJF_URL            default of --url
  SSJF_CONTROL_TOKEN  default of --token (keeps the token out of the process list)

exit codes:
  0 done   1 server error   2 bad request or usage   3 server unavailable   4 time limit passed
  5 cancelled by the server   130 interrupted (the running request is cancelled)
"""


def _connection_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    group = parser.add_argument_group("connection")
    group.add_argument(
        "--url",
        default=os.environ.get("SSJF_URL", DEFAULT_URL),
        metavar="HOST:PORT",
        help="Triton's gRPC endpoint (default: $SSJF_URL, else 127.0.0.1:8001)",
    )
    group.add_argument("--tls", action="store_true", help="encrypt the connection")
    group.add_argument("--tls-ca", metavar="FILE", help="PEM file with the root certificates to trust (implies --tls)")
    group.add_argument("--tls-cert", metavar="FILE", help="PEM file with this client's certificate (implies --tls)")
    group.add_argument("--tls-key", metavar="FILE", help="PEM file with the certificate's private key")
    group.add_argument(
        "--header", action="append", default=[], metavar="NAME=VALUE", help="header of every call; may be repeated"
    )
    return parser


def _token_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--token",
        default=os.environ.get("SSJF_CONTROL_TOKEN"),
        help="control token from the scheduler's configuration (default: $SSJF_CONTROL_TOKEN)",
    )
    return parser


def _add_generate_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("prompt", help="the prompt; - reads it from standard input")
    parser.add_argument("--stream", action="store_true", help="print the answer while it is generated")
    parser.add_argument("--json", action="store_true", help="print JSON; with --stream one object per line")
    parser.add_argument(
        "--door", choices=get_args(Door), default="scheduler", help="model to send to (default: %(default)s)"
    )
    parser.add_argument("--max-tokens", type=int, default=256, metavar="N", help="default: %(default)s")
    parser.add_argument("--min-tokens", type=int, metavar="N")
    parser.add_argument(
        "--stop", action="append", default=[], dest="stop_words", metavar="TEXT", help="stop word; may be repeated"
    )
    parser.add_argument("--temperature", type=float, metavar="X")
    parser.add_argument("--top-p", type=float, metavar="X")
    parser.add_argument("--top-k", type=int, metavar="N")
    parser.add_argument("--seed", type=int, metavar="N")
    parser.add_argument("--repetition-penalty", type=float, metavar="X")
    parser.add_argument("--request-id", default="", metavar="ID", help="default: a unique one")
    parser.add_argument("--priority-class", type=int, metavar="N", help="0 is the most urgent")
    parser.add_argument("--tenant", metavar="NAME", help="tenant whose share the request counts against")
    parser.add_argument(
        "--deadline-ms",
        type=int,
        metavar="MS",
        help="refused if it cannot start in time; a running answer is cut there, with an error, "
        "unless the server sets cancel_past_deadline=false",
    )
    parser.add_argument("--expected-tokens", type=int, metavar="N", help="known output length (policy sjf-oracle)")
    parser.add_argument(
        "--timeout", type=float, default=DEFAULT_TIMEOUT_S, dest="timeout_s", metavar="S", help="default: %(default)g"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ssjf",
        description="Client of the shortest-job-first scheduler for LLM serving on Triton.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    connection, token = _connection_parser(), _token_parser()

    generate = commands.add_parser("generate", parents=[connection], help="answer a prompt")
    _add_generate_options(generate)
    generate.set_defaults(run=_generate)

    status = commands.add_parser("status", parents=[connection, token], help="show the scheduler's state")
    status.add_argument("--json", action="store_true", help="print the state as JSON")
    status.set_defaults(run=_status)

    top = commands.add_parser("top", parents=[connection, token], help="watch the scheduler's state")
    top.add_argument("--interval", type=float, default=1.0, metavar="S", help="seconds (default: %(default)g)")
    top.add_argument("--count", type=int, metavar="N", help="stop after N refreshes (default: run until Ctrl-C)")
    top.set_defaults(run=_top)

    policy = commands.add_parser("policy", parents=[connection, token], help="switch the live server's policy")
    policy.add_argument("name", help="fcfs, ssjf, …; the server lists what it knows when the name is wrong")
    policy.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="aging_rate, sept_tail_beta, prefill_weight or random_seed; none where that is allowed; may be repeated",
    )
    policy.set_defaults(run=_policy)

    limits = commands.add_parser("limits", parents=[connection, token], help="change the live server's limits")
    _add_limits(limits)
    limits.set_defaults(run=_limits)
    return parser


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("limits", "what is not named stays as it is")

    def add(option: str, **more: Any) -> None:
        limits.add_argument(option, default=argparse.SUPPRESS, **more)

    add("--max-inflight", type=int, metavar="N", help="requests in the engine at a time")
    add("--over-dispatch", type=int, metavar="N", help="how many more to send ahead")
    add(
        "--max-inflight-tokens",
        type=_whole_or_none,
        metavar="N|none",
        help="prompt and predicted tokens in the engine; none takes the budget off",
    )
    add("--batching", choices=("none", "dynamic", "continuous"), help="when the next requests start")
    add("--batch-size", type=int, metavar="N", help="requests in a group of batching=dynamic")
    add("--max-wait-s", type=float, metavar="S|inf", help="who has waited this long goes first; inf: no bound")
    add("--max-queue", type=int, metavar="N", help="requests that may wait")
    add("--max-queue-bytes", type=int, metavar="N", help="bytes of their prompts and tokens")


def _whole_or_none(text: str) -> int | None:
    return None if text == _NONE else int(text)


def _client(arguments: argparse.Namespace) -> Client:
    tls = None
    if arguments.tls or arguments.tls_ca or arguments.tls_cert or arguments.tls_key:
        tls = TlsOptions(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
    metadata = {}
    for header in arguments.header:
        name, separator, value = header.partition("=")
        if not separator or not name:
            raise InvalidRequest(f"--header {header!r}: must be NAME=VALUE", "header")
        metadata[name] = value
    door = cast("Door", getattr(arguments, "door", "scheduler"))
    return Client(arguments.url, door, tls=tls, metadata=metadata)


def _prompt(argument: str) -> str:
    if argument != "-":
        return argument
    try:
        return sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"prompt: standard input is not UTF-8 (byte {error.start})", "text") from error


def _generate(client: Client, arguments: argparse.Namespace) -> None:
    names = set(GenerateRequest.__slots__) - {"text", "bad_words", "presence_penalty", "frequency_penalty"}
    request = GenerateRequest(_prompt(arguments.prompt), **{name: getattr(arguments, name) for name in names})
    if not arguments.stream:
        answer = client.generate(request)
        print(_as_json(answer) if arguments.json else answer.text)
        return
    stream = client.stream(request)
    for chunk in stream:
        if arguments.json:
            print(_as_json(chunk), flush=True)
        else:
            print(chunk.text, end="", flush=True)
    print(_as_json(stream.result) if arguments.json else "")
    if not arguments.json and sys.stderr.isatty():
        print(_summary(stream.result), file=sys.stderr)


def _as_json(value: Any) -> str:
    return json.dumps(dataclasses.asdict(value), ensure_ascii=False)


def _summary(answer: Generation) -> str:
    queued = "" if answer.queue_time_s is None else f", {answer.queue_time_s:.2f} s in the queue"
    predicted = "" if answer.predicted_tokens is None else f" ({answer.predicted_tokens} predicted)"
    return f"[{answer.output_tokens} tokens{predicted}, {answer.elapsed_s:.2f} s{queued}]"


def _status(client: Client, arguments: argparse.Namespace) -> None:
    status = client.status(arguments.token)
    _print_status(status, as_json=arguments.json)


def _print_status(status: Status, *, as_json: bool) -> None:
    values = status.as_dict()
    if as_json:
        print(json.dumps(values, ensure_ascii=False))
        return
    width = max((len(name) for name in values), default=0)
    for name, value in values.items():
        shown = value if isinstance(value, (str, int, float)) else json.dumps(value, ensure_ascii=False)
        print(f"{name:<{width}}  {shown}")


def _top(client: Client, arguments: argparse.Namespace) -> None:
    if not arguments.interval > 0:
        raise InvalidRequest(f"--interval {arguments.interval:g}: must be above 0", "interval")
    run_top(lambda: client.status(arguments.token), interval_s=arguments.interval, count=arguments.count)


def _token(arguments: argparse.Namespace) -> str:
    if not arguments.token:
        raise InvalidRequest(
            "--token: required (or SSJF_CONTROL_TOKEN in the environment); it is control_token of the scheduler's "
            "configuration, and scripts/serve writes it into .run/*/serve.json of its checkout",
            "token",
        )
    return str(arguments.token)


def _policy(client: Client, arguments: argparse.Namespace) -> None:
    settings = dict(_setting(text) for text in arguments.settings)
    _print_status(client.set_policy(arguments.name, _token(arguments), settings), as_json=False)


def _setting(text: str) -> tuple[str, SettingValue]:
    key, separator, value = text.partition("=")
    if not separator or not key:
        raise InvalidRequest(f"--set {text!r}: must be KEY=VALUE", "settings")
    if value == _NONE:
        return key, None
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return key, kind(value)
    return key, value  # the server names what it expects of this key


def _limits(client: Client, arguments: argparse.Namespace) -> None:
    limits: dict[str, SettingValue] = {name: value for name, value in vars(arguments).items() if name in _LIMITS}
    _print_status(client.set_limits(_token(arguments), **limits), as_json=False)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _exit_code(error: ClientError) -> int:
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


def main(argv: Sequence[str] | None = None, find_token: FindToken | None = None) -> int:
    """Runs one command and returns its exit code. `find_token` is asked where nobody has given a control token."""
    arguments = _parser().parse_args(argv)
    if find_token is not None and "token" in arguments and not arguments.token:
        arguments.token = find_token(arguments.url)
    run: Callable[[Client, argparse.Namespace], None] = arguments.run
    # `kill` should cancel the running request just as Ctrl-C does.
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _client(arguments) as client:
            run(client, arguments)
            sys.stdout.flush()
    except ClientError as error:
        message = " ".join(str(error).split())
        print(f"ssjf: {type(error).__name__}: {message}", file=sys.stderr)
        return _exit_code(error)
    except KeyboardInterrupt:
        print("ssjf: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        # The reader (`| head`) has gone: the request is cancelled, and Python must not flush into the pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0
