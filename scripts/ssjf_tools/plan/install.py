"""A finished plan into the folder that a server reads."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from proxy_tensorrt.plan import FACTS_FILE, PLAN_FILE, PlanFacts

COPIED = ("tokenizer.json", "proxy.json")


def install(exported: Path, target: Path, plan: bytes, facts: PlanFacts) -> None:
    """Put plan, plan.json, proxy.json and tokenizer.json into `target`, where the same file is not there already.

    All are written and synced beside the old ones first, then renamed, plan.json last. The folder itself is not
    replaced: it may be a mounted volume. plan.json has the digests of the others, so a server that sees a mixture
    refuses it, or goes on with the plan it has. Raises OSError.
    """
    target.mkdir(parents=True, exist_ok=True)
    contents = {name: (exported / name).read_bytes() for name in COPIED}
    contents[PLAN_FILE] = plan
    contents[FACTS_FILE] = (json.dumps(facts.document(), indent=2) + "\n").encode()
    drafts: dict[Path, Path] = {}
    try:
        for name, content in _changed(target, contents).items():
            drafts[_draft(target / name, content)] = target / name
        for draft, final in drafts.items():
            draft.replace(final)
    finally:
        for draft in drafts:
            draft.unlink(missing_ok=True)


def _changed(target: Path, contents: Mapping[str, bytes]) -> dict[str, bytes]:
    """A tokenizer.json that stays the same keeps its age: a server reads what has changed."""

    def same(name: str, content: bytes) -> bool:
        return (target / name).is_file() and (target / name).read_bytes() == content

    return {name: content for name, content in contents.items() if not same(name, content)}


def _draft(final: Path, content: bytes) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{final.name}.", dir=final.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)
