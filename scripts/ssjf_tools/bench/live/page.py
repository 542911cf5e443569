"""A measurement as one HTML page that needs nothing else: tables and plots, to be mailed or put beside a ticket."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ssjf_tools.bench.live.asking import DIRECT, Run
from ssjf_tools.bench.live.experiment import ArmRun, Outcome
from ssjf_tools.bench.live.record import write_whole
from ssjf_tools.bench.live.report import DETAILS, TIMES, headline, rows_as_text
from ssjf_tools.bench.live.svg import Axis, Series, legend, plot
from ssjf_tools.simulate.tables import Column

_POINTS = 400
_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1320px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.05rem; margin: 0 0 .4rem; }
p { margin: .3rem 0 1rem; max-width: 62rem; }
.scroll { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } th { font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(460px, 1fr)); gap: 1.2rem; }
figure { margin: 0; padding: 1rem; border: 1px solid var(--line); border-radius: 8px; background: var(--soft); }
svg { width: 100%; height: auto; } svg text { font-size: 12px; fill: currentColor; }
.grid { stroke: var(--line); stroke-width: .6; } .diagonal { stroke: currentColor; stroke-dasharray: 4 4; opacity: .5; }
.legend span { margin-right: 1.2rem; white-space: nowrap; }
.legend i { display: inline-block; width: .9em; height: .9em; margin-right: .4em; border-radius: 2px; }
figcaption { font-size: .85rem; opacity: .8; }
"""


def write_page(path: Path, record: Mapping[str, Any], outcome: Outcome) -> None:
    """Write the page, making the folder where needed."""
    write_whole(path, page(record, outcome))


def page(record: Mapping[str, Any], outcome: Outcome) -> str:
    """The whole document."""
    plots = "\n".join(_plots(outcome))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Scheduling policies, measured</title><style>{_STYLE}</style></head><body>"
        f"<h1>Scheduling policies, measured</h1><p>{escape(headline(record))} {escape(str(record['date']))}.</p>"
        f"{_table(TIMES, record)}{_table(DETAILS, record)}{legend(outcome.settings.arms)}"
        f'<div class="plots">{plots}</div></body></html>\n'
    )


def _table(columns: Mapping[str, Any], record: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells in rows_as_text(columns, record["rows"])
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _plots(outcome: Outcome) -> list[str]:
    first = {arm: outcome.of_arm(arm)[0] for arm in outcome.settings.arms}
    queues = [_queue(arm, one.run) for arm, one in first.items()]
    everything = {arm: outcome.of_arm(arm) for arm in outcome.settings.arms}
    slots, seconds = outcome.target.max_inflight, Axis("seconds", log=True, floor=0.05)
    return [
        _figure(
            "Requests in the system over time",
            plot("queue over time", Axis("seconds"), Axis("requests waiting or running"), queues),
            f"First repeat. Above {slots}, requests wait for one of the {slots} slots.",
        ),
        _figure(
            "Job completion times",
            plot("completion times", seconds, Axis("share of requests"), _distributions(everything)),
            "All repeats. Arrival to last token; the further left, the better.",
        ),
        _figure(
            "Waiting by true length",
            plot("waits by length", Axis("output tokens", log=True, floor=1), Axis("mean seconds to first token"),
                 [_waits(arm, runs) for arm, runs in everything.items()]),
            "All repeats, tenths of the requests by the true length of their answer.",
        ),
        _figure(
            "Predicted against actual length",
            plot("predicted against actual", Axis("actual output tokens", log=True, floor=1),
                 Axis("predicted tokens", log=True, floor=1), _predictions(everything), diagonal=True),
            "One dot a prompt. What counts for the order is that dots rise from left to right.",
        ),
    ]  # fmt: skip


def _figure(title: str, drawing: str, caption: str) -> str:
    return f"<figure><h2>{escape(title)}</h2>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _queue(arm: str, run: Run) -> Series:
    ok = run.ok
    times = np.linspace(0.0, float(run.end_s[ok].max()), _POINTS)
    arrived = np.searchsorted(np.sort(run.arrival_s[ok]), times, side="right")
    ended = np.searchsorted(np.sort(run.end_s[ok]), times, side="right")
    return Series(arm, times.tolist(), (arrived - ended).tolist())


def _distributions(everything: Mapping[str, list[ArmRun]]) -> list[Series]:
    shares = np.linspace(0, 1, _POINTS)
    made = []
    for arm, runs in everything.items():
        times = np.concatenate([(one.run.end_s - one.run.arrival_s)[one.run.ok] for one in runs])
        made.append(Series(arm, np.quantile(times, shares).tolist(), shares.tolist()))
    return made


def _waits(arm: str, runs: list[ArmRun]) -> Series:
    def column(name: str) -> Column:
        return np.concatenate([getattr(one.run, name)[one.run.ok] for one in runs])

    tokens, waits = column("output_tokens"), column("first_s") - column("arrival_s")
    tenths = [part for part in np.array_split(np.argsort(tokens, kind="stable"), 10) if len(part)]
    return Series(arm, [float(tokens[part].mean()) for part in tenths], [float(waits[part].mean()) for part in tenths])


def _predictions(everything: Mapping[str, list[ArmRun]]) -> list[Series]:
    """Of the first arm that predicts; the same for all others."""
    for arm, runs in everything.items():
        if arm != DIRECT:
            run = runs[0].run
            return [Series(arm, run.output_tokens.tolist(), run.predicted_tokens.tolist(), points=True)]
    return []
