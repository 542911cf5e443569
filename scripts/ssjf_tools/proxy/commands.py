"""What the proxy's commands share: how they take data, and that anything wrong ends in one line."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from proxy_onnx.errors import ProxyError

from .data import DataError
from .encoder import EncoderError


def run_command(
    parser: argparse.ArgumentParser, action: Callable[[argparse.Namespace], None], arguments: Sequence[str] | None
) -> int:
    """Parse and run; 0, or 1 with one line on the standard error that says what is wrong."""
    options = parser.parse_args(arguments)
    try:
        action(options)
    except (DataError, EncoderError, ProxyError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """`--prompts` and `--lengths`."""
    parser.add_argument(
        "--prompts",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="JSONL: id, and prompt (text) or messages (role, content); or the scheduler's request journal",
    )
    parser.add_argument(
        "--lengths",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="JSONL: id, output_tokens, finish ('stop', or 'length' when cut), optional sample, model; or the journal",
    )


def show(what: str, figures: Mapping[str, float]) -> None:
    """Print named figures on one line."""
    print(f"{what}: " + ", ".join(f"{name} {value:g}" for name, value in figures.items()), flush=True)
