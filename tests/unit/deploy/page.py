"""docs/deploy.md, whose commands tests take from it and run."""

from __future__ import annotations

import re

from ssjf_tools.bootstrap import CHECKOUT

PAGE = (CHECKOUT / "docs" / "deploy.md").read_text(encoding="utf-8")


def block_of(test: str) -> str:
    """The commands that a comment of the page assigns to a test file."""
    found = re.findall(rf"<!-- tests/unit/deploy/{test} runs this\. -->\n```bash\n(.*?)```", PAGE, re.DOTALL)
    assert len(found) == 1
    return str(found[0])


def command_lines() -> list[str]:
    """All commands of the page, continued lines joined."""
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    return [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines() if line]
