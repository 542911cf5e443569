"""`scripts/ssjf`: the client's command line, which knows the control token of a server that this checkout runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from ssjf_client.cli import main as ssjf
from ssjf_tools.deploy.asking import control_token


def main(argv: Sequence[str] | None = None) -> int:
    """As `ssjf`; without `--token` and SSJF_CONTROL_TOKEN the token is the one that scripts/serve wrote down."""
    return ssjf(argv, lambda url: control_token(None, url))


if __name__ == "__main__":
    sys.exit(main())
