"""Rows as a table in the terminal and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ssjf_tools.simulate.experiment import Row

_HEAD = (
    f"{'policy':<16} {'predictor':<16} {'mean JCT':>9} {'p50':>8} {'p90':>8} {'p99':>9} {'max wait':>9} "
    f"{'vs fcfs':>16} {'of oracle':>9}"
)


def table(rows: Sequence[Row]) -> str:
    """Lines with seconds, and per cent against fcfs with half the width of the paired 95 % interval."""
    return "\n".join([_HEAD, *(_line(row) for row in rows)])


def _line(row: Row) -> str:
    versus = "" if row.mean_jct_vs_fcfs is None else f"{row.mean_jct_vs_fcfs:+.1%}"
    if row.ci95_mean_jct_vs_fcfs is not None:
        low, high = row.ci95_mean_jct_vs_fcfs
        versus += f" ±{100 * (high - low) / 2:.1f}"
    share = "" if row.share_of_oracle_gain is None else f"{row.share_of_oracle_gain:.0%}"
    times = f"{row.mean_jct_s:>9.2f} {row.p50_jct_s:>8.2f} {row.p90_jct_s:>8.2f} {row.p99_jct_s:>9.2f}"
    return f"{row.policy:<16} {row.predictor or '':<16} {times} {row.max_wait_s:>9.1f} {versus:>16} {share:>9}"


def write_json(path: Path, rows: Sequence[Row], **extra: Any) -> None:
    """Write {"rows": [...]} and whatever else belongs to it."""
    content = {"rows": [asdict(row) for row in rows], **extra}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
