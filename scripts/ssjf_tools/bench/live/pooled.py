"""Several measurements as one: more repeats than a machine has time for at a stretch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from ssjf_tools.bench.live.experiment import Outcome, rows_of
from ssjf_tools.bench.live.record import read_outcome
from ssjf_tools.bench.live.report import show_rows, wide_console
from ssjf_tools.simulate.tables import InputError

# What may differ between measurements that are pooled: chance, the day, and how fast the machine was on it. All else
# that a record says of its settings must be the same.
_MAY_DIFFER = ("repeats", "seed", "rates")


def pool(paths: Sequence[Path]) -> dict[str, Any]:
    """{"measurements": what each is, "rows": as of one measurement with all their repeats}.

    Raises InputError for a file that is no measurement of scripts/bench, or not of the same as the first (other
    settings, policies or prompts), or one with repeats of a seed that is there already: they have the same arrivals,
    and the interval over the repeats would be too narrow.
    """
    found = [read_outcome(path) for path in paths]
    seeds: dict[int, Path] = {}
    for path, (content, outcome) in zip(paths, found, strict=True):
        _check_alike(path, content, outcome, *found[0])
        for seed in range(outcome.settings.seed, outcome.settings.seed + outcome.settings.repeats):
            if seed in seeds:
                raise InputError(path, f"has a repeat of seed {seed}, as {seeds[seed]} has", column="settings.seed")
            seeds[seed] = path
    outcomes = [outcome for _, outcome in found]
    measurements = [
        {
            "file": str(path),
            "date": content["date"],
            "repeats": outcome.settings.repeats,
            "capacity": content["capacity"],
        }
        for path, (content, outcome) in zip(paths, found, strict=True)
    ]
    return {"measurements": measurements, "rows": rows_of(outcomes)}


def _check_alike(
    path: Path, content: Mapping[str, Any], outcome: Outcome, first: Mapping[str, Any], first_outcome: Outcome
) -> None:
    for name, value in first["settings"].items():
        own = content["settings"].get(name)
        if name not in _MAY_DIFFER and own != value:
            raise InputError(path, f"is {own!r}, in the first measurement {value!r}", column=f"settings.{name}")
    if set(outcome.settings.arms) != set(first_outcome.settings.arms):
        own_arms, arms = (", ".join(one.settings.arms) for one in (outcome, first_outcome))
        raise InputError(path, f"are {own_arms}, in the first measurement {arms}", column="policies")
    if {one.id for one in outcome.prompts} != {one.id for one in first_outcome.prompts}:
        raise InputError(path, "are not those of the first measurement", column="prompts")


def show(pooled: Mapping[str, Any]) -> None:
    """What was pooled, and the tables of a measurement."""
    table = Table("measurement", title="Pooled")
    for heading in ("date", "repeats", "capacity, requests/s"):
        table.add_column(heading, justify="right")
    for one in pooled["measurements"]:
        table.add_row(one["file"], one["date"], str(one["repeats"]), f"{one['capacity']['requests_per_s']:.3g}")
    wide_console().print(table)
    show_rows(pooled["rows"])
