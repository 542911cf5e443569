"""The command line that `scripts/health` and `scripts/drain` share: which server, and the right to control it."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from ssjf_tools.bootstrap import CHECKOUT

DEFAULT_URL = "127.0.0.1:8001"


def connection_parser() -> argparse.ArgumentParser:
    """`--url` and `--token`, for use as a parent."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--url",
        default=os.environ.get("SSJF_URL", DEFAULT_URL),
        metavar="HOST:PORT",
        help="Triton's gRPC endpoint (default: $SSJF_URL, else 127.0.0.1:8001)",
    )
    parser.add_argument(
        "--token",
        default=os.environ.get("SSJF_CONTROL_TOKEN"),
        help="control token (default: $SSJF_CONTROL_TOKEN, else what scripts/serve of this checkout left in .run/)",
    )
    return parser


def control_token(given: str | None, url: str, run: Path = CHECKOUT / ".run") -> str | None:
    """The token given, else the one that scripts/serve wrote down for the server at `url`; None: nobody knows."""
    if given:
        return given
    for path in sorted(run.glob("*/serve.json")):
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            if state["grpc_url"] == url.replace("localhost:", "127.0.0.1:"):
                return str(state["control_token"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being written, or somebody else's
    return None
