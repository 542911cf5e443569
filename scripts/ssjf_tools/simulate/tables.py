"""Columns of CSV files, plain or gzip, checked cell by cell."""

from __future__ import annotations

import csv
import gzip
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

Column = NDArray[np.float64]
Parser = Callable[[str], float]


class InputError(ValueError):
    """A file cannot be used: names the file, the line and the column, what stands there and what is expected."""

    def __init__(self, path: Path, problem: str, *, line: int | None = None, column: str | None = None):
        place = f"{path}" + (f", line {line}" if line is not None else "") + (f", column {column}" if column else "")
        super().__init__(f"{place}: {problem}")


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file for reading, gzip or plain by its first bytes. Raises InputError if it cannot be read."""
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            yield file
    except (OSError, EOFError) as error:
        raise InputError(path, f"cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except UnicodeDecodeError:
        raise InputError(path, "is not UTF-8 text") from None


def read_columns(path: Path, parsers: Mapping[str, Parser], required: Sequence[str]) -> dict[str, Column]:
    """The columns named in `parsers` that the file has, one float64 vector each; others are ignored.

    Raises InputError for a missing required column, a cell that its parser refuses, or a file without rows.
    """
    with open_text(path) as file:
        reader = csv.reader(file)
        header = [name.strip() for name in next(reader, [])]
        for name in required:
            if name not in header:
                found = ", ".join(header) or "nothing"
                raise InputError(path, f"is missing; the header has: {found}", line=1, column=name)
        wanted = [(header.index(name), name, parse) for name, parse in parsers.items() if name in header]
        values: dict[str, list[float]] = {name: [] for _, name, _ in wanted}
        for row in reader:
            if row:
                _read_row(path, reader.line_num, row, wanted, values)
    if not next(iter(values.values()), None):
        raise InputError(path, "has no rows", line=2)
    return {name: np.array(cells) for name, cells in values.items()}


def _read_row(
    path: Path, line: int, row: list[str], wanted: list[tuple[int, str, Parser]], values: dict[str, list[float]]
) -> None:
    for place, name, parse in wanted:
        if place >= len(row):
            raise InputError(path, f"the line has only {len(row)} cells", line=line, column=name)
        try:
            values[name].append(parse(row[place]))
        except ValueError as error:
            raise InputError(path, f"is {row[place]!r}, {error}", line=line, column=name) from None


def check_sorted(path: Path, times: Column, column: str, first_line: int = 2) -> None:
    """Raise InputError at the first time that is before the one of the line above it."""
    steps = np.nonzero(np.diff(times) < 0)[0]
    if len(steps):
        line = int(steps[0]) + 1 + first_line
        raise InputError(path, "is earlier than the line before it; times must be sorted", line=line, column=column)


# -- parsers of cells: return the value or raise ValueError with what was expected ------------------------------------


def number_from(low: float) -> Parser:
    """Parser of finite numbers from `low` up."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= low):
            raise ValueError(f"expected a number from {low:g} up")
        return value

    return parse


def timestamp(text: str) -> float:
    """Seconds of a time as 2023-11-16 18:17:03.9799600 (any number of decimals), read as UTC."""
    whole, _, fraction = text.strip().partition(".")
    try:
        moment = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc)
        return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    except ValueError:
        raise ValueError("expected a time as 2023-11-16 18:17:03.97") from None
