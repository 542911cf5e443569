"""What to simulate: files of lengths and predictions, traces, journals, or a synthetic mix."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssjf_tools.simulate.tables import (
    Column,
    InputError,
    ascending,
    json_number,
    number_from,
    open_text,
    read_columns,
    read_header,
    timestamp,
)

CLASS_COLUMNS = ("class3", "class5")
# Predictors that are made up where a source brings none: the true length times log-normal noise.
NOISY = "noisy"


@dataclass(frozen=True, slots=True)
class Population:
    """Requests to draw from. All columns [n]: tokens, and seconds from the first arrival (None: times are drawn).

    `predicted`: predictor name → predicted output tokens. `ordered`: the rows are one run, to be replayed as they are.
    """

    output_tokens: Column
    prompt_tokens: Column
    predicted: dict[str, Column]
    arrival_s: Column | None = None
    ordered: bool = False

    def __len__(self) -> int:
        return len(self.output_tokens)


def read_predictions(path: Path) -> Population:
    """A CSV of true and predicted lengths: `output_tokens` and at least one of class3, class5, predicted_tokens.

    Optional: `prompt_tokens`, `arrival_s`. A class is worth the mean true length of its rows in the file, so classes
    are ordered by that. Raises InputError.
    """
    tokens = number_from(0)
    parsers = dict.fromkeys(("output_tokens", *CLASS_COLUMNS, "predicted_tokens", "prompt_tokens"), tokens)
    columns = read_columns(path, {**parsers, "arrival_s": ascending(tokens)}, ["output_tokens"])
    lengths = columns["output_tokens"]
    predicted = {name: class_means(columns[name], lengths) for name in CLASS_COLUMNS if name in columns}
    if "predicted_tokens" in columns:
        predicted["predicted_tokens"] = columns["predicted_tokens"]
    if not predicted:
        raise InputError(
            path, "is missing, and class3 and predicted_tokens too; one is needed", line=1, column="class5"
        )
    arrivals = columns.get("arrival_s")
    if arrivals is not None:
        arrivals -= arrivals[0]
    return Population(lengths, columns.get("prompt_tokens", np.zeros(len(lengths))), predicted, arrivals)


def class_means(classes: Column, lengths: Column) -> Column:
    """For each row the mean true length of its class."""
    _, members = np.unique(classes, return_inverse=True)
    means = np.bincount(members, weights=lengths) / np.bincount(members)
    return np.asarray(means[members])


# Trace formats by their columns: arrival, prompt, output, and seconds of one unit of arrival.
_TRACE_FORMATS = (
    ("TIMESTAMP", "ContextTokens", "GeneratedTokens", 1.0),  # Azure LLM inference 2023
    ("timestamp_ms", "input_tokens", "output_tokens", 1e-3),  # Mooncake
    ("arrival_s", "prompt_tokens", "output_tokens", 1.0),
)


def read_trace(path: Path, noise: float, seed: int) -> Population:
    """A trace of arrivals and lengths: Azure 2023, Mooncake, or arrival_s, prompt_tokens, output_tokens.

    A trace brings no predictions, so a `noisy` predictor is made up: the true length times exp(noise × normal).
    Raises InputError.
    """
    header = read_header(path)
    known = [row for row in _TRACE_FORMATS if row[0] in header] or [_TRACE_FORMATS[-1]]
    arrival, prompt, output, unit = known[0]
    tokens = number_from(0)
    times = ascending(timestamp if arrival == "TIMESTAMP" else tokens)
    columns = read_columns(path, {arrival: times, prompt: tokens, output: tokens}, [arrival, prompt, output])
    lengths = columns[output]
    seconds = (columns[arrival] - columns[arrival][0]) * unit
    return Population(lengths, columns[prompt], {NOISY: add_noise(lengths, noise, seed)}, seconds, ordered=True)


def read_journal(path: Path) -> Population:
    """The scheduler's journal (docs/journal.md), one JSON object a line, replayed as it was.

    Uses arrival (or arrival_s), prompt_tokens, predicted_tokens, output_tokens and nothing else; lines whose `outcome`
    is not "finished" are left out. Lines are in order of completion; they are sorted by arrival. Raises InputError.
    """
    rows: list[tuple[float, ...]] = []
    with open_text(path) as file:
        for line, text in enumerate(file, start=1):
            if text.strip():
                rows.extend(_journal_row(path, line, text))
    if not rows:
        raise InputError(path, "has no finished requests")
    arrival, prompt, predicted, output = np.array(sorted(rows)).T
    return Population(output, prompt, {"predicted_tokens": predicted}, arrival - arrival[0], ordered=True)


def _journal_row(path: Path, line: int, text: str) -> list[tuple[float, ...]]:
    try:
        entry = json.loads(text)
    except ValueError:
        entry = None
    if not isinstance(entry, dict):
        raise InputError(path, "is not a JSON object", line=line)
    if entry.get("outcome", "finished") != "finished":
        return []
    arrival = "arrival_s" if "arrival_s" in entry else "arrival"
    cells = []
    for name in (arrival, "prompt_tokens", "predicted_tokens", "output_tokens"):
        value = json_number(entry.get(name))
        if value is None:
            raise InputError(path, f"is {entry.get(name)!r}, expected a number from 0 up", line=line, column=name)
        cells.append(value)
    return [tuple(cells)]


def synthetic(noise: float, seed: int, size: int = 50_000) -> Population:
    """A mix of short tasks (60 %, median 30 tokens) and chat (40 %, median 300), log-normal, at most 2,048 tokens."""
    source = np.random.default_rng([seed, 1])
    is_chat = source.random(size) < 0.4
    lengths = np.exp(np.where(is_chat, source.normal(5.7, 0.7, size), source.normal(3.4, 0.8, size)))
    lengths = np.clip(np.rint(lengths), 1, 2048)
    prompts = np.clip(np.rint(np.exp(source.normal(5.0, 1.0, size))), 1, 8192)
    return Population(lengths, prompts, {NOISY: add_noise(lengths, noise, seed)})


def add_noise(lengths: Column, noise: float, seed: int) -> Column:
    """A made-up predictor: unbiased in the log, log-normal with standard deviation `noise`."""
    source = np.random.default_rng([seed, 2])
    return np.asarray(lengths * np.exp(noise * source.standard_normal(len(lengths))))
