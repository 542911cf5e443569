"""The figures as a table in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

Row = Mapping[str, Any]


def seconds(value: float | None) -> str:
    """A time with three digits."""
    if value is None:
        return "–"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def percent(value: float | None) -> str:
    """A fraction as a signed per cent."""
    return "–" if value is None else f"{100 * value:+.1f} %"


def share(value: float | None) -> str:
    """A fraction as per cent."""
    return "–" if value is None else f"{100 * value:.0f} %"


def against(row: Row, name: str) -> str:
    """A comparison with half the width of its paired 95 % interval."""
    interval = row[f"ci95_{name}"]
    return percent(row[name]) + ("" if interval is None else f" ± {50 * (interval[1] - interval[0]):.1f}")


# Heading → how a row shows it. The page shows all of them, the terminal in two tables.
TIMES: dict[str, Callable[[Row], str]] = {
    "policy": lambda row: str(row["policy"]),
    "mean JCT": lambda row: seconds(row["mean_jct_s"]),
    "p50": lambda row: seconds(row["p50_jct_s"]),
    "p90": lambda row: seconds(row["p90_jct_s"]),
    "p99": lambda row: seconds(row["p99_jct_s"]),
    "against fcfs": lambda row: against(row, "mean_jct_vs_fcfs"),
    "by blocks": lambda row: interval(row["ci95_blocks_mean_jct_vs_fcfs"]),
    "of oracle's gain": lambda row: share(row["share_of_oracle_gain"]),
    "longest wait": lambda row: seconds(row["max_wait_s"]),
    "load": lambda row: "–" if row["realised_load"] is None else f"{row['realised_load']:.2f}",
    "tokens/s": lambda row: f"{row['tokens_per_s']:.1f}",
    "tokens/s against fcfs": lambda row: against(row, "tokens_per_s_vs_fcfs"),
}
DETAILS: dict[str, Callable[[Row], str]] = {
    "policy": lambda row: str(row["policy"]),
    "TTFT mean / p50 / p90 / p99": lambda row: _spread(row, "ttft_s"),
    "ITL mean / p50 / p90 / p99": lambda row: _spread(row, "itl_s"),
    "s a token": lambda row: seconds(row["normalised_latency_s"]),
    "slowdown by length, quarters": lambda row: " ".join(seconds(row[f"slowdown_q{at}"]) for at in range(1, 5)),
    "good/s": lambda row: f"{row['goodput_per_s']:.2f}",
    "good": lambda row: share(row["good_share"]),
    "failed": lambda row: f"{row['failed']:g}",
}


def wide_console() -> Console:
    """The terminal; where there is none, wide enough for the tables."""
    return Console() if Console().is_terminal else Console(width=150)


def show(record: Mapping[str, Any]) -> None:
    """Both tables with what they stand on."""
    wide_console().print(headline(record))
    show_rows(record["rows"])


def show_rows(rows: Sequence[Row]) -> None:
    """Both tables."""
    console = wide_console()
    for title, columns in (("Times in seconds", TIMES), ("Details", DETAILS)):
        table = Table(title=title)
        for at, heading in enumerate(columns):
            table.add_column(heading, justify="right" if at else "left")
        for row in rows:
            table.add_row(*(show_cell(row) for show_cell in columns.values()))
        console.print(table)


def headline(record: Mapping[str, Any]) -> str:
    """What was asked, in a sentence or two."""
    settings, capacity = record["settings"], record["capacity"]
    arrivals = f"{settings['arrivals']} arrivals"
    rates = sorted({f"{rate:.3g}" for rate in settings["rates"] if rate is not None}, key=float)
    if rates:
        arrivals += f" at {' to '.join(dict.fromkeys((rates[0], rates[-1])))}/s"
    if settings["load"] is not None:
        arrivals += f" (load {settings['load']:g})"
    if settings["concurrency"] is not None:
        arrivals = f"closed loop of {settings['concurrency']} clients"
    asked = f"{settings['requests']} requests × {settings['repeats']} repeats, {arrivals}"
    speed = f"{capacity['requests_per_s']:.3g} requests/s, {capacity['tokens_per_s']:.0f} tokens/s"
    answers = f"{capacity['mean_tokens']:.0f} tokens on average (CV {capacity['cv_tokens']:.2f})"
    refused = f" {record['refused_prompts']} prompts were refused and left out." if record["refused_prompts"] else ""
    return f"{asked}, {settings['max_inflight']} slots. Capacity {speed}; answers of {answers}.{refused}"


def interval(value: tuple[float, float] | None) -> str:
    """Of fractions, in percent; a dash for None."""
    return "–" if value is None else f"{100 * value[0]:.1f} to {100 * value[1]:.1f} %"


def _spread(row: Row, name: str) -> str:
    return " / ".join(seconds(row[f"{part}_{name}"]) for part in ("mean", "p50", "p90", "p99"))


def rows_as_text(columns: Mapping[str, Callable[[Row], str]], rows: Sequence[Row]) -> list[list[str]]:
    """The cells of a table, one list a row."""
    return [[cell(row) for cell in columns.values()] for row in rows]
