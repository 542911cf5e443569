"""`scripts/docs`: builds the documentation as a site, every warning an error. Needs mkdocs-material."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ssjf_tools.bootstrap import CHECKOUT

_EPILOG = """\
On first use it installs mkdocs-material into .venv-docs (requirements/docs.lock). Links and anchors between pages are
also checked by scripts/test, without building.

exit codes: 0 built, 1 a page, link or the navigation is wrong (printed), 2 wrong usage
"""


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/docs",
        description="Builds docs/ into a site (mkdocs.yml), strictly: a broken link ends it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, default=CHECKOUT / "site", metavar="DIR", help="where to (site)")
    parser.add_argument("--serve", action="store_true", help="show it on http://127.0.0.1:8010 and follow changes")
    options = parser.parse_args(argv)
    action = ["serve", "--dev-addr", "127.0.0.1:8010"]
    if not options.serve:
        action = ["build", "--clean", "--site-dir", str(options.out.absolute())]
    command = [sys.executable, "-m", "mkdocs", *action, "--strict", "--config-file", str(CHECKOUT / "mkdocs.yml")]
    return subprocess.run(command, cwd=CHECKOUT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
