"""A measurement as JSON, and back: what `--json` writes, and the comparison with the simulator and `--pool` read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from ssjf_tools.bench.live.asking import Run
from ssjf_tools.bench.live.experiment import ArmRun, Outcome, Settings
from ssjf_tools.bench.live.figures import Objective
from ssjf_tools.bench.live.first_pass import Capacity, FirstPass
from ssjf_tools.bench.live.plan import Plan
from ssjf_tools.bench.live.prompts import Prompt
from ssjf_tools.bench.live.target import Target
from ssjf_tools.simulate.tables import Column, InputError, json_number, open_text
from ssjf_tools.simulate.workload import ArrivalProcess

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
            "rates": outcome.rates,
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
    content = _content(path)
    with _measurement_of(path):
        return _record(path, content)


def read_outcome(path: Path) -> tuple[dict[str, Any], Outcome]:
    """A measurement written by `--json` as it was before it was written, less the prompts' texts and the server.

    Beside it the whole content. Raises InputError as read_record does.
    """
    content = _content(path)
    with _measurement_of(path):
        record = _record(path, content)
        arms = tuple(dict.fromkeys(one.policy for one in record.runs))
        repeats = {one.repeat for one in record.runs}
        if repeats != set(range(len(repeats))) or len(record.runs) != len(arms) * len(repeats):
            raise InputError(path, "needs each policy once in each repeat", column="runs")
        truth = [
            int(_number(path, f"prompts.{at}", one["output_tokens"])) for at, one in enumerate(content["prompts"], 1)
        ]
        asked = {one.repeat: np.array(entry["prompt"]) for one, entry in zip(record.runs, content["runs"], strict=True)}
        if any(not 0 <= place < len(truth) for entry in content["runs"] for place in entry["prompt"]):
            raise InputError(path, f"asks a prompt that is none of the {len(truth)}", column="runs")
        return content, Outcome(
            _settings(content["settings"], arms, len(repeats)),
            Target("", "", record.max_inflight, record.max_wait_s, own=False),
            [Prompt(str(one["id"]), "") for one in content["prompts"]],
            FirstPass(list(range(len(truth))), truth, Capacity(**content["capacity"])),
            list(content["settings"]["rates"]),
            [Plan(asked[repeat], None) for repeat in range(len(repeats))],
            [ArmRun(one.policy, one.repeat, one.run, None, None, one.prior_tokens) for one in record.runs],
            int(content["refused_prompts"]),
        )


def _settings(written: Mapping[str, Any], arms: tuple[str, ...], repeats: int) -> Settings:
    kind = written["arrivals"]
    return Settings(
        arms=arms,
        requests=int(written["requests"]),
        repeats=repeats,
        seed=int(written["seed"]),
        max_tokens=int(written["max_tokens"]),
        greedy=bool(written["greedy"]),
        process=None if kind == "closed" else ArrivalProcess(kind, written["rates"][0], written["cv"]),
        load=written["load"],
        concurrency=written["concurrency"] or 1,
        trace=None,
        objective=Objective(float(written["objective_ttft_s"]), float(written["objective_itl_s"])),
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        with open_text(path) as file:
            content: dict[str, Any] = json.load(file)
    except json.JSONDecodeError as error:
        raise InputError(path, f"is not JSON: {error.msg}", line=error.lineno) from None
    return content


@contextmanager
def _measurement_of(path: Path) -> Iterator[None]:
    """What goes wrong in here does so because the file is no measurement: InputError."""
    try:
        yield
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(path, f"is not a measurement of scripts/bench: {error!r}", column="runs") from None


def _record(path: Path, content: Mapping[str, Any]) -> Record:
    settings = content["settings"]
    bound = settings["max_wait_s"]  # inf: none
    bound = bound if bound == math.inf else _number(path, "settings.max_wait_s", bound)
    runs = [_recorded(path, place, entry) for place, entry in enumerate(content["runs"], start=1)]
    return Record(int(settings["max_inflight"]), bound, runs)


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
