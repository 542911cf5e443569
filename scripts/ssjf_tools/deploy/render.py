"""`scripts/render`: writes each Kubernetes overlay as one plain file, deploy/kubernetes/rendered/<overlay>.yaml.

For clusters and reviewers without kustomize, and for the tests, which hold them against the published schemas. The
first line has a digest of everything that a file was made from, so that one that is out of date is noticed anywhere.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ssjf_tools.bootstrap import CHECKOUT

KUBERNETES = CHECKOUT / "deploy" / "kubernetes"
_HEAD = "# Written by scripts/render from deploy/kubernetes (sha256 {digest}); edit that."


def overlays() -> list[str]:
    """The names of all overlays."""
    return sorted(path.parent.name for path in KUBERNETES.glob("overlays/*/kustomization.yaml"))


def head() -> str:
    """The first line of every rendered file, as the sources are now."""
    digest = hashlib.sha256()
    for path in sorted(KUBERNETES.rglob("*")):
        if path.is_file() and KUBERNETES / "rendered" not in path.parents:
            digest.update(f"{path.relative_to(KUBERNETES)}\0".encode() + path.read_bytes() + b"\0")
    return _HEAD.format(digest=digest.hexdigest()[:16])


def rendered(overlay: str) -> Path:
    """Where an overlay's plain file lies."""
    return KUBERNETES / "rendered" / f"{overlay}.yaml"


def render(overlay: str, kubectl: str) -> str:
    """An overlay as one YAML text. Raises CalledProcessError with kubectl's words in `stderr`."""
    command = [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/render", description=__doc__)
    parser.parse_args(argv)
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        print("scripts/render: kubectl (1.27 or newer) is not installed", file=sys.stderr)
        return 1
    for overlay in overlays():
        try:
            text = render(overlay, kubectl)
        except subprocess.CalledProcessError as error:
            print(f"scripts/render: {overlay}: {error.stderr.strip()}", file=sys.stderr)
            return 1
        rendered(overlay).parent.mkdir(exist_ok=True)
        rendered(overlay).write_text(f"{head()}\n{text}", encoding="utf-8")
        print(f"written: {rendered(overlay).relative_to(CHECKOUT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
