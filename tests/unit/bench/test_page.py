"""The page stands alone and its plots put points where they belong."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser

from ssjf_tools.bench.live.page import page
from ssjf_tools.bench.live.record import as_record
from ssjf_tools.bench.live.report import show
from ssjf_tools.bench.live.svg import Axis, Series, plot
from tests.unit.bench.build import make_outcome, one_slot

TOKENS = [40, 10, 20, 10]
RUNS = [
    ("fcfs", 0, one_slot([0.0] * 4, TOKENS, [0, 1, 2, 3])),
    ("sjf-oracle", 0, one_slot([0.0] * 4, TOKENS, [1, 3, 2, 0])),
    ("direct", 0, one_slot([0.0] * 4, TOKENS, [0, 1, 2, 3])),
]


class Balance(HTMLParser):
    """Counts open elements, and what would be fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.fetched += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_stands_alone() -> None:
    outcome = make_outcome(RUNS, TOKENS)
    reader = Balance()
    text = page(as_record(outcome), outcome)
    reader.feed(text)
    assert not reader.open
    assert not reader.fetched
    assert "url(" not in text
    assert reader.seen.count("svg") == 4
    assert reader.seen.count("table") == 2
    assert text.count("<tr>") == 2 * 4
    assert "sjf-oracle" in text
    assert "nan" not in text


def test_terminal_table(capsys: object) -> None:
    show(as_record(make_outcome(RUNS, TOKENS)))
    text = capsys.readouterr().out  # type: ignore[attr-defined]
    assert "-38.5 %" not in text
    assert "sjf-oracle" in text
    assert "100 %" in text


def test_points_stand_where_the_axes_say() -> None:
    drawing = plot("p", Axis("x", log=True, floor=1), Axis("y"), [Series("a", [1, 10, 100], [0, 5, math.nan], True)])
    dots = [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', drawing)]
    assert len(dots) == 2
    marks = {
        text: float(x) for x, text in re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">(\d+)<', drawing)
    }
    assert dots[0][0] == marks["1"]
    assert dots[1][0] == marks["10"]
    assert dots[0][1] > dots[1][1]  # y grows upwards


def test_plots_of_nothing_and_of_a_single_value() -> None:
    for series in ([], [Series("a", [3.0], [2.0])], [Series("a", [math.nan], [math.nan])]):
        for axis in (Axis("x"), Axis("x", log=True)):
            assert plot("p", axis, axis, series).endswith("</svg>")


def test_names_are_escaped() -> None:
    assert "<b>" not in plot("<b>", Axis("<b>"), Axis("y"), [])
