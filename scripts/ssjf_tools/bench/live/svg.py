"""Small plots as SVG text: lines or points over two axes, no library needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Distinct in hue and in lightness; the first is the baseline's grey.
COLOURS = ("#6b7280", "#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d")
_WIDTH, _HEIGHT = 620, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 12, 14, 46


@dataclass(frozen=True, slots=True)
class Series:
    """Points of one arm, [n] each; `points`: dots instead of a line."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    points: bool = False


@dataclass(frozen=True, slots=True)
class Axis:
    """A label, and whether the scale is logarithmic (values below `floor` stand at it then)."""

    label: str
    log: bool = False
    floor: float = 1e-3


@dataclass(frozen=True, slots=True)
class _Scale:
    axis: Axis
    low: float
    high: float
    start: float  # pixels
    end: float

    @classmethod
    def over(cls, axis: Axis, values: Sequence[float], start: float, end: float) -> _Scale:
        known = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
        if axis.log:
            low = max(axis.floor, min(known))
            return cls(axis, low, max(*known, low * 1.1), start, end)
        low, high = min(0.0, *known), max(known)
        return cls(axis, low, high if high > low else low + 1.0, start, end)

    def __call__(self, value: float) -> float:
        def place(number: float) -> float:
            return math.log(max(number, self.axis.floor)) if self.axis.log else number

        share = (place(value) - place(self.low)) / (place(self.high) - place(self.low))
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round numbers within the scale."""
        if self.axis.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            factors = (1, 2, 5) if len(decades) <= 4 else (1,)
            marks = [factor * 10.0**power for power in decades for factor in factors]
            return [mark for mark in marks if self.low * 0.999 <= mark <= self.high * 1.001]
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / 4))
        step *= next(factor for factor in (1, 2, 5, 10) if (self.high - self.low) / (step * factor) <= 6)
        return [step * at for at in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def plot(title: str, x_axis: Axis, y_axis: Axis, series: Sequence[Series], diagonal: bool = False) -> str:
    """One plot as an <svg> element. `diagonal`: a line at x = y. Values that are not finite are left out."""
    xs = [value for one in series for value in one.x]
    ys = [value for one in series for value in one.y]
    x = _Scale.over(x_axis, xs, _LEFT, _WIDTH - _RIGHT)
    y = _Scale.over(y_axis, ys, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">',
        *_grid(x, y),
        *([_diagonal(x, y)] if diagonal else []),
        *(_drawn(one, x, y, COLOURS[at % len(COLOURS)]) for at, one in enumerate(series)),
        "</svg>",
    ]
    return "\n".join(parts)


def legend(names: Sequence[str]) -> str:
    """The arms with their colours, in the order of their series."""
    keys = (
        f'<span><i style="background:{COLOURS[at % len(COLOURS)]}"></i>{escape(name)}</span>'
        for at, name in enumerate(names)
    )
    return f'<div class="legend">{"".join(keys)}</div>'


def _grid(x: _Scale, y: _Scale) -> list[str]:
    parts = []
    for value in x.ticks():
        at = x(value)
        parts.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>')
        parts.append(f'<text x="{at:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{value:g}</text>')
    for value in y.ticks():
        at = y(value)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{value:g}</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.axis.label)}</text>')
    centre = (_TOP + _HEIGHT - _BOTTOM) / 2
    place = f'x="14" y="{centre}" transform="rotate(-90 14 {centre})"'
    return [*parts, f'<text {place} text-anchor="middle">{escape(y.axis.label)}</text>']


def _diagonal(x: _Scale, y: _Scale) -> str:
    low, high = max(x.low, y.low), min(x.high, y.high)
    return f'<line class="diagonal" x1="{x(low):.1f}" y1="{y(low):.1f}" x2="{x(high):.1f}" y2="{y(high):.1f}"/>'


def _drawn(one: Series, x: _Scale, y: _Scale, colour: str) -> str:
    known = [(a, b) for a, b in zip(one.x, one.y, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if one.points:
        dots = (f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2"/>' for a, b in known)
        return f'<g fill="{colour}" fill-opacity="0.45">{"".join(dots)}</g>'
    return _line([(x(a), y(b)) for a, b in known], colour)


def _line(points: Sequence[tuple[float, float]], colour: str) -> str:
    path = " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"/>'
