"""A folder that appears complete or not at all, built once however many processes ask for it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Report = Callable[[str], None]

FACTS = "asset.json"


def build_once(target: Path, fingerprint: str, build: Callable[[Path], dict[str, Any]], report: Report) -> bool:
    """Make the folder `target` with `build`, unless one of this fingerprint is there already; says whether it built.

    `build` fills the folder that it is given and returns facts for `asset.json`. It works in a temporary folder beside
    the target, which is renamed when complete; other processes wait meanwhile.
    """
    if fingerprint_of(target) == fingerprint:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with _only_one(target.parent / f".{target.name}.lock", report, target.name):
        if fingerprint_of(target) == fingerprint:
            return False
        _sweep(target)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        try:
            facts = {"fingerprint": fingerprint, **build(folder)}
            (folder / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
            folder.chmod(0o755)
            if target.exists():
                target.rename(folder.with_suffix(".old"))
            folder.rename(target)
        finally:
            _sweep(target)
    return True


def fingerprint_of(target: Path) -> str | None:
    """What a finished folder was built from; None where there is none."""
    try:
        found = json.loads((target / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found.get("fingerprint") if isinstance(found, dict) else None


def _sweep(target: Path) -> None:
    """Remove what broken builds left; only the holder of the lock calls this."""
    for pattern in (f".{target.name}.*.partial", f".{target.name}.*.old"):
        for leftover in target.parent.glob(pattern):
            shutil.rmtree(leftover, ignore_errors=True)


@contextmanager
def _only_one(path: Path, report: Report, name: str) -> Iterator[None]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report(f"{name}: another process is building it, waiting")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
