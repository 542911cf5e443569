"""`scripts/drain`: lets a server run empty before it is stopped, for Kubernetes' preStop hook and for people."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from ssjf_client import Client, ClientError
from ssjf_tools.deploy.asking import connection_parser, control_token

_POLL_S = 0.2
_SAY_EVERY_S = 5.0
_UNANSWERED_AT_MOST = 3
_TIMEOUT_S = 5.0

_EPILOG = """\
New requests are refused from then on (UNAVAILABLE, "is draining"), waiting and running ones finish. Triton itself stops
gRPC first on SIGTERM, and then refuses the scheduler's own calls to the engine: so drain, then stop.

examples
  scripts/drain --grace 100            until nothing is live, at most 100 s
  scripts/drain --delay 5 --grace 100  first 5 s in which load balancers stop sending
  scripts/drain --resume               take requests again

exit codes: 0 nothing is live (or nobody answers: nothing can be lost any more), 1 requests are left after --grace,
2 wrong usage, 3 the server does not let us (control token)
"""


def wait_until_empty(client: Client, token: str, grace_s: float, say: Callable[[str], None]) -> bool:
    """Polls until no request is live, for at most `grace_s` seconds; True when it came to that.

    A server that stops answering meanwhile has lost what it had: there is nothing left to wait for.
    """
    deadline, said, unanswered = time.monotonic() + grace_s, time.monotonic(), 0
    while True:
        try:
            live, unanswered = client.status(token).live_requests, 0
        except ClientError:
            live, unanswered = None, unanswered + 1
        if live == 0 or unanswered == _UNANSWERED_AT_MOST:
            return True
        if time.monotonic() >= deadline:
            return False
        if time.monotonic() - said >= _SAY_EVERY_S:
            said = time.monotonic()
            say(f"waiting for {live} requests ({deadline - said:.0f} s left)")
        time.sleep(_POLL_S)


def drain(client: Client, token: str, grace_s: float, say: Callable[[str], None]) -> int:
    """Stops the scheduler from accepting and waits; returns the exit code."""
    try:
        live = client.drain(token).live_requests
    except ClientError as error:
        say(f"cannot drain: {' '.join(str(error).split())}")
        return 3 if "control_token" in str(error) else 0
    say(f"no new requests; {live} are live")
    if wait_until_empty(client, token, grace_s, say):
        say("drained")
        return 0
    say(f"requests are left after {grace_s:g} s")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/drain",
        description="Lets a server run empty: new requests are refused, the others finish.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[connection_parser()],
    )
    parser.add_argument("--grace", type=float, default=100.0, metavar="SECONDS", help="default: %(default)g")
    parser.add_argument("--delay", type=float, default=0.0, metavar="SECONDS", help="wait first (default: %(default)g)")
    parser.add_argument("--resume", action="store_true", help="take requests again")
    return parser


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(argv)
    for name in ("grace", "delay"):
        if not getattr(options, name) >= 0:
            parser.error(f"--{name} is {getattr(options, name):g}, expected 0 seconds or more")
    token = control_token(options.token, options.url)
    if token is None:
        print("no control token: give --token or set SSJF_CONTROL_TOKEN", file=sys.stderr)
        return 3
    time.sleep(options.delay)
    with Client(options.url, timeout_s=_TIMEOUT_S) as client:
        if not options.resume:
            return drain(client, token, options.grace, lambda line: print(line, flush=True))
        try:
            client.resume(token)
        except ClientError as error:
            print(f"cannot resume: {' '.join(str(error).split())}", file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
