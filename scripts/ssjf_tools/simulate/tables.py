"""Columns of CSV files, plain or gzip, checked cell by cell."""

from __future__ import annotations

import csv
import gzip
import math
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

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
    """Open a text file for reading, gzip or plain by its first bytes. Raises InputError if it cannot be read.

    Reads inside the block are covered, too: gzip files show their damage only then.
    """
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(path, f"cannot be read: the gzip file is damaged or cut off ({error})") from None
    except OSError as error:
        raise InputError(path, f"cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise InputError(path, "is not UTF-8 text") from None


def read_header(path: Path) -> list[str]:
    """The names of a CSV file's columns; none for an empty file. Raises InputError."""
    with open_text(path) as file:
        return _names(next(_records(path, file), (1, [])))


def read_columns(path: Path, parsers: Mapping[str, Parser], required: Sequence[str]) -> dict[str, Column]:
    """The columns named in `parsers` that the file has, one float64 vector each; others are ignored.

    Raises InputError for a missing required column, a cell that its parser refuses, or a file without rows.
    """
    with open_text(path) as file:
        records = _records(path, file)
        first: tuple[int, list[str]] = next(records, (1, []))
        header = _names(first)
        for name in required:
            if name not in header:
                found = ", ".join(header) or "nothing"
                raise InputError(path, f"is missing; the header has: {found}", line=first[0], column=name)
        wanted = [(header.index(name), name, parse) for name, parse in parsers.items() if name in header]
        values: dict[str, list[float]] = {name: [] for _, name, _ in wanted}
        for line, row in records:
            _read_row(path, line, row, wanted, values)
    if not next(iter(values.values()), None):
        raise InputError(path, "has no rows", line=first[0] + 1)
    return {name: np.array(cells) for name, cells in values.items()}


def _records(path: Path, file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file, each with the line that it begins on; blank lines are left out."""
    reader, line = csv.reader(file), 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise InputError(path, f"is no CSV from here on: {error}", line=line) from None


def _names(header: tuple[int, list[str]]) -> list[str]:
    return [name.strip() for name in header[1]]


def _read_row(
    path: Path, line: int, row: list[str], wanted: list[tuple[int, str, Parser]], values: dict[str, list[float]]
) -> None:
    for place, name, parse in wanted:
        if place >= len(row):
            raise InputError(path, f"the line has only {len(row)} cells", line=line, column=name)
        try:
            values[name].append(parse(row[place]))
        except ValueError as error:
            raise InputError(path, f"is {_short(row[place])}, {error}", line=line, column=name) from None


def _short(cell: str) -> str:
    """A cell as it stands there; of one that swallowed half of the file (a quote too many) only the beginning."""
    return repr(cell) if len(cell) <= 60 else f"{cell[:60]!r}…"


def json_number(value: Any) -> float | None:
    """A value read from JSON as a finite number from 0 up; None if it is none.

    Python's reader takes NaN, Infinity, 1e999 and integers that no float can hold.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        return None
    return float(value)


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


def ascending(parse: Parser) -> Parser:
    """Parser of a column whose values never fall from one row to the next. It remembers the last: one a file."""
    last = -math.inf

    def parse_next(text: str) -> float:
        nonlocal last
        value = parse(text)
        if value < last:
            raise ValueError("earlier than the line before it; times must be sorted")
        last = value
        return value

    return parse_next


def timestamp(text: str) -> float:
    """Seconds of a time as 2023-11-16 18:17:03.9799600 (any number of decimals), read as UTC."""
    whole, _, fraction = text.strip().partition(".")
    try:
        if fraction and not fraction.isdecimal():
            raise ValueError
        moment = datetime.fromisoformat(whole).replace(tzinfo=timezone.utc)
        return moment.timestamp() + (float(f"0.{fraction}") if fraction else 0.0)
    except ValueError:
        raise ValueError("expected a time as 2023-11-16 18:17:03.97") from None
