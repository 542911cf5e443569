"""The command line of `scripts/build-proxy-plan`."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path

from proxy_tensorrt.plan import LIBRARIES
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.plan.comparison import Limits

CONFIG = CHECKOUT / "model_repository" / "length_predictor" / "config.pbtxt"

DESCRIPTION = """\
Builds model.plan, the length predictor for production, and installs it if it ranks real prompts as ONNX Runtime does.
Run it in the container that serves, on the GPU that serves: a plan fits the TensorRT and the GPU that built it.

  scripts/build-proxy-plan                          the shipped proxy, into $SSJF_PROXY_DIR or /opt/ssjf/proxy
  scripts/build-proxy-plan --proxy my-proxy         one that scripts/train-proxy made
  scripts/build-proxy-plan --export-only exported   on any machine: graph, tokenizer, ONNX Runtime's answers ...
  scripts/build-proxy-plan --exported exported      ... and in a container without network, or in the image of
                                                    deploy/Dockerfile: only TensorRT is needed
  scripts/build-proxy-plan --gate 8.9               no GPU at hand: is the graph clean? (tensorrt-rtx, polygraphy)

A running server takes the new plan over by itself within some seconds (docs/proxy-tensorrt.md).
"""


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parsed and checked; ends the process with a message for wrong ones."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="scripts/build-proxy-plan", description=DESCRIPTION, formatter_class=raw)
    source = parser.add_argument_group("from what").add_mutually_exclusive_group()
    source.add_argument("--proxy", type=Path, metavar="DIR", help="a trained proxy (default: the shipped one)")
    source.add_argument("--exported", type=Path, metavar="DIR", help="what --export-only wrote")
    parser.add_argument("--prompts", type=Path, metavar="FILE", help="lines or .jsonl to compare on (default: bundled)")
    target = parser.add_argument_group("to what").add_mutually_exclusive_group()
    into = Path(os.environ.get("SSJF_PROXY_DIR") or "/opt/ssjf/proxy")
    target.add_argument(
        "--into", type=Path, metavar="DIR", default=into, help="where to install (default: %(default)s)"
    )
    target.add_argument("--export-only", type=Path, metavar="DIR", help="write the inputs of a build there, and end")
    target.add_argument(
        "--gate", nargs="+", metavar="CC", help="build for these compute capabilities and install nothing"
    )
    _how(parser)
    options = parser.parse_args(arguments)
    if options.exported and (options.prompts or options.export_only):
        parser.error("--exported has its prompts already: leave --prompts and --export-only out")
    if options.max_batch is None:
        options.max_batch = max_batch_size(CONFIG)
    if not 1 <= options.max_batch <= 1024:
        parser.error(f"--max-batch is {options.max_batch}; expected from 1 to 1024")
    try:
        options.limits = Limits(options.lowest_tau, options.largest_difference)
    except ValueError as error:
        parser.error(str(error))
    return options


def _how(parser: argparse.ArgumentParser) -> None:
    how, limits = parser.add_argument_group("how"), Limits()
    how.add_argument(
        "--max-batch", type=int, metavar="N", help="rows of a batch (default: max_batch_size of the model)"
    )
    how.add_argument(
        "--version-compatible", action="store_true", help="also for later releases of the same major version"
    )
    how.add_argument("--gpu", type=int, default=0, metavar="N", help="number of the device (default: %(default)s)")
    how.add_argument("--library", choices=LIBRARIES, default=LIBRARIES[0], help="(default: %(default)s)")
    accept = parser.add_argument_group("what is installed")
    accept.add_argument(
        "--lowest-tau", type=float, default=limits.lowest_tau, metavar="T", help="Kendall tau_b (default: %(default)s)"
    )
    accept.add_argument(
        "--largest-difference",
        type=float,
        default=limits.largest_difference,
        metavar="P",
        help="of a probability (default: %(default)s)",
    )


def max_batch_size(config: Path) -> int:
    """From a config.pbtxt. Raises ValueError when it has none."""
    found = re.search(r"^max_batch_size:\s*(\d+)", config.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError(f"{config} has no max_batch_size")
    return int(found.group(1))
