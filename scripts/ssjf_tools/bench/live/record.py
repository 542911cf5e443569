"""A measurement as JSON, and back: what `--json` writes and the comparison with the simulator reads."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ssjf_tools.bench.live.asking import Run
from ssjf_tools.bench.live.experiment import Outcome
from ssjf_tools.simulate.tables import Column, InputError, json_number, open_text

_DIGITS = 4


def as_record(outcome: Outcome) -> dict[str, Any]:
    """Everything, JSON's types only; NaN becomes null."""
    settings, target, capacity = outcome.settings, outcome.target, outcome.first.capacity
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "settings": {
            "requests": settings.requests,
            "repeats": settings.repeats,
            "seed": settings.seed,
            "arrivals": "closed" if settings.process is None else settings.process.kind,
            "cv": None if settings.process is None else settings.process.cv,
            "load": settings.load,
            "rate": outcome.rate,
            "concurrency": settings.concurrency if settings.process is None else None,
            "max_tokens": settings.max_tokens,
            "greedy": settings.greedy,
            "objective_ttft_s": settings.objective.ttft_s,
            "objective_itl_s": settings.objective.itl_s,
            "max_inflight": target.max_inflight,
            "max_wait_s": target.max_wait_s,
        },
        "capacity": {entry.name: getattr(capacity, entry.name) for entry in fields(capacity)},
        "refused_prompts": outcome.refused,
        "rows": outcome.rows(),
        "prompts": [
            {"id": prompt.id, "output_tokens": tokens}
            for prompt, tokens in zip(outcome.prompts, outcome.first.truth, strict=True)
        ],
        "runs": [
            {
                "policy": one.arm,
                "repeat": one.repeat,
                "effective_policy": one.effective_policy,
                "tau": one.tau,
                "prior_tokens": one.prior_tokens,
                "prompt": outcome.plans[one.repeat].prompts.tolist(),
                "columns": {entry.name: _plain(getattr(one.run, entry.name)) for entry in fields(Run)},
            }
            for one in outcome.runs
        ],
    }


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write it, making the folder where needed; see write_whole."""
    write_whole(path, json.dumps(record) + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file, making the folder where needed. One of that name is replaced as a whole, or stays as it is."""
    if not can_rewrite(path):
        path.write_text(text, encoding="utf-8")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def can_rewrite(path: Path) -> bool:
    """Whether it is free or an ordinary file. Others (/dev/stdout, a pipe of the shell) take what they get once."""
    return not path.is_symlink() and (path.is_file() or not path.exists())


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """One run as it was written."""

    policy: str
    repeat: int
    prior_tokens: float | None
    run: Run


@dataclass(frozen=True, slots=True)
class Record:
    """What the comparison with the simulator needs of a measurement."""

    max_inflight: int
    max_wait_s: float
    runs: list[RecordedRun]


def read_record(path: Path) -> Record:
    """A measurement written by `--json`. Raises InputError for a file that is none.

    Its text has no lines to name, so an error names the run and the request, counted from 1.
    """
    try:
        with open_text(path) as file:
            content = json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(path, f"is not JSON: {error.msg}", line=error.lineno) from None
    try:
        settings = content["settings"]
        bound = settings["max_wait_s"]  # inf: none
        bound = bound if bound == math.inf else _number(path, "settings.max_wait_s", bound)
        runs = [_recorded(path, place, entry) for place, entry in enumerate(content["runs"], start=1)]
        return Record(int(settings["max_inflight"]), bound, runs)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(path, f"is not a measurement of scripts/bench: {error!r}", column="runs") from None


def _recorded(path: Path, place: int, entry: dict[str, Any]) -> RecordedRun:
    columns = {}
    for name in (each.name for each in fields(Run)):
        values = entry["columns"].get(name)
        if not isinstance(values, list) or len(values) != len(entry["prompt"]):
            raise InputError(path, f"needs {len(entry['prompt'])} numbers in every run", column=name)
        columns[name] = _column(path, place, name, values)
    learned = entry.get("prior_tokens")
    if learned is not None:
        learned = _number(path, f"runs.{place}.prior_tokens", learned)
    return RecordedRun(str(entry["policy"]), int(entry["repeat"]), learned, Run(**columns))


def _column(path: Path, place: int, name: str, values: list[Any]) -> Column:
    numbers = [math.nan if value is None else json_number(value) for value in values]
    if None in numbers:
        request = numbers.index(None)
        problem = f"has {values[request]!r} for request {request + 1}, expected numbers from 0 up, or null"
        raise InputError(path, problem, column=f"runs.{place}.{name}")
    return np.array(numbers, dtype=np.float64)


def _number(path: Path, name: str, value: Any) -> float:
    number = json_number(value)
    if number is None:
        raise InputError(path, f"is {value!r}, expected a number from 0 up", column=name)
    return number


def _plain(values: Column) -> list[float | None]:
    return [None if math.isnan(value) else round(value, _DIGITS) for value in values.tolist()]
