"""The pages say what the code says, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ssjf_tools import reference, reference_settings, reference_tensors

ROOT = Path(__file__).parents[3]
PAGES = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("client/*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
ANCHORED = re.compile(r"\]\(([^)#\s]*)#([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def test_the_configuration_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "configuration.md").read_text() == reference_settings.page(), "run scripts/reference"


def test_the_metrics_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == reference.metrics(), "run scripts/reference"


def test_the_tensors_page_is_what_the_code_says() -> None:
    assert (ROOT / "docs" / "tensors.md").read_text() == reference_tensors.page(), "run scripts/reference"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_scripts_that_pages_name_exist() -> None:
    named = {name for page in PAGES for name in re.findall(r"scripts/([a-z_-]+)\b(?!\.|/)", page.read_text())}
    assert {name for name in named if not (ROOT / "scripts" / name).exists()} == set()


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as mkdocs makes them (and, for plain words, as a forge does)."""
    seen: dict[str, int] = {}
    found = set()
    for title in re.findall(r"^#{1,6} (.+)$", FENCE.sub("", page.read_text()), re.MULTILINE):
        words = re.sub(r"[^\w\s-]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)).strip().lower()
        slug = re.sub(r"[-\s]+", "-", words)
        found.add(f"{slug}_{seen[slug]}" if slug in seen else slug)
        seen[slug] = seen.get(slug, 0) + 1
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_anchors_lead_to_headings(page: Path) -> None:
    links = [(target, anchor) for target, anchor in ANCHORED.findall(page.read_text()) if "://" not in target]
    wanted = [(page.parent / target if target else page, anchor) for target, anchor in links]
    assert [(to.name, anchor) for to, anchor in wanted if to.suffix == ".md" and anchor not in anchors(to)] == []


def test_the_site_has_every_page_and_no_other() -> None:
    """What `mkdocs build --strict` would say of its navigation, without building."""
    listed = re.findall(r"^ +- [^:]+: (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").glob("**/*.md")}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("**/*.md")), ids=lambda page: page.name)
def test_pages_of_the_site_link_to_nothing_outside_it(page: Path) -> None:
    """A relative link out of docs/ works on a forge and is broken on the site."""
    targets = [target for target in LINK.findall(FENCE.sub("", page.read_text())) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).resolve().is_relative_to(ROOT / "docs")] == []
