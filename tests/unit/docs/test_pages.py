"""The pages say what the code says, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssjf_tools import reference

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("client/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def test_the_configuration_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == reference.configuration(), "run scripts/reference"


def test_the_metrics_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == reference.metrics(), "run scripts/reference"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_scripts_that_pages_name_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"scripts/([a-z_-]+)\b(?!\.|/)", page.read_text())}
    assert {name for name in named if not (ROOT / "scripts" / name).exists()} == set()
