"""`scripts/dashboard`: writes the Grafana dashboard from the table of panels below; a test compares the two."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ssjf_tools.bootstrap import CHECKOUT

DASHBOARD = CHECKOUT / "deploy" / "grafana" / "dashboards" / "ssjf.json"
_SOURCE: Final = {"type": "prometheus", "uid": "prometheus"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 7, 3
# Every expression is limited to the servers chosen at the top of the dashboard.
_CHOSEN = 'instance=~"$instance"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: `queries` are (legend, PromQL); `$` stands for the choice of servers. `unit` is Grafana's name."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    meaning: str = ""
    least: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    """Charts under one heading."""

    title: str
    panels: tuple[Panel, ...]


def _quantiles(metric: str, by: str = "") -> tuple[tuple[str, str], ...]:
    """p50 and p99 of a histogram, or, `by` a label, the p99 of each of its values."""
    if by:
        inner = f"sum by (le, {by}) (rate({metric}_bucket{{$}}[$__rate_interval]))"
        return ((f"{{{{{by}}}}}", f"histogram_quantile(0.99, {inner})"),)
    inner = f"sum by (le) (rate({metric}_bucket{{$}}[$__rate_interval]))"
    return tuple((f"p{round(q * 100)}", f"histogram_quantile({q}, {inner})") for q in (0.5, 0.99))


def _rate(metric: str, by: str) -> str:
    return f"sum by ({by}) (rate({metric}{{$}}[$__rate_interval]))"


ROWS: Final = (
    Row(
        "What clients see",
        (
            Panel("Time in the queue", "s", _quantiles("ssjf_queue_time_seconds"), "Arrival to dispatch."),
            Panel("Time to first token", "s", _quantiles("ssjf_ttft_seconds"), "Arrival to first token."),
            Panel("Completion time", "s", _quantiles("ssjf_jct_seconds"), "Arrival to last token."),
            Panel(
                "Completion time, p99 by predicted length",
                "s",
                _quantiles("ssjf_jct_seconds", "predicted"),
                "Short answers should be far below long ones: that is what the scheduler is for.",
            ),
            Panel("Requests by outcome", "reqps", (("{{outcome}}", _rate("ssjf_requests_total", "outcome")),)),
            Panel("Output tokens", "tps", (("{{instance}}", _rate("ssjf_output_tokens_total", "instance")),)),
        ),
    ),
    Row(
        "Queue and engine",
        (
            Panel(
                "Waiting requests",
                "short",
                (("class {{priority_class}}", "sum by (priority_class) (ssjf_queue_requests{$})"),),
            ),
            Panel(
                "Predicted tokens that wait",
                "short",
                (("class {{priority_class}}", "sum by (priority_class) (ssjf_queue_backlog_tokens{$})"),),
            ),
            Panel(
                "Longest wait",
                "s",
                (("{{instance}}", "ssjf_queue_oldest_wait_seconds{$}"),),
            ),
            Panel(
                "Went ahead after max_wait",
                "reqps",
                (("{{instance}}", _rate("ssjf_promotions_total", "instance")),),
                "More than a few: the load is above what the engine can do.",
            ),
            Panel(
                "Engine slots",
                "short",
                (("used {{instance}}", "ssjf_inflight_requests{$}"), ("slots {{instance}}", "ssjf_max_inflight{$}")),
                "Below its slots with requests waiting: max_inflight_tokens holds them back.",
            ),
            Panel("Tokens in the engine", "short", (("{{instance}}", "ssjf_inflight_tokens{$}"),)),
            Panel(
                "Engines",
                "short",
                (
                    ("{{endpoint}} up", "ssjf_engine_up{$}"),
                    ("{{endpoint}} requests", "ssjf_engine_inflight_requests{$}"),
                ),
                "1 up, 0.5 on trial, 0 out.",
            ),
        ),
    ),
    Row(
        "Predictions",
        (
            Panel(
                "Rank correlation",
                "short",
                (("{{instance}}", "ssjf_prediction_tau{$}"), ("guardrail {{instance}}", "ssjf_guardrail_active{$}")),
                "Kendall's tau_b of predicted and actual lengths. At 0 the order is chance.",
                least=-1.0,
            ),
            Panel("Predicted over actual length", "short", (("{{instance}}", "ssjf_prediction_bias{$}"),)),
            Panel(
                "Where predictions come from",
                "reqps",
                (
                    ("{{source}}", _rate("ssjf_predictions_total", "source")),
                    ("proxy, late", "sum (rate(ssjf_late_predictions_total{$}[$__rate_interval]))"),
                ),
                "Late: came while the request waited, which had come with the prior.",
            ),
            Panel(
                "Median length",
                "short",
                tuple(
                    (
                        legend,
                        f"histogram_quantile(0.5, sum by (le) (rate({metric}_bucket{{$}}[$__rate_interval])))",
                    )
                    for legend, metric in (("predicted", "ssjf_predicted_tokens"), ("actual", "ssjf_actual_tokens"))
                ),
            ),
        ),
    ),
    Row(
        "The scheduler itself",
        (
            Panel("Wait for the sender", "s", (("{{instance}}", "ssjf_relay_lag_seconds{$}"),)),
            Panel(
                "Responses",
                "short",
                (
                    ("sent", _rate("ssjf_responses_total", "instance")),
                    ("merged", _rate("ssjf_responses_merged_total", "instance")),
                ),
                "Merged: pieces of one stream that went out together because the sender was busy.",
            ),
            Panel("Streams that wait for the sender", "short", (("{{instance}}", "ssjf_relay_backlog{$}"),)),
            Panel(
                "Trouble with engines",
                "short",
                (
                    ("taken out {{endpoint}}", "increase(ssjf_engine_failures_total{$}[$__rate_interval])"),
                    ("queued again", "increase(ssjf_requeued_total{$}[$__rate_interval])"),
                    ("strangers {{endpoint}}", "increase(ssjf_engine_foreign_requests_total{$}[$__rate_interval])"),
                ),
            ),
            Panel(
                "Journal",
                "short",
                (
                    ("written", "rate(ssjf_journal_records_total{$}[$__rate_interval])"),
                    ("lost: {{reason}}", "rate(ssjf_journal_dropped_total{$}[$__rate_interval])"),
                ),
            ),
        ),
    ),
)


def _target(letter: str, legend: str, expression: str) -> dict[str, Any]:
    return {
        "refId": letter,
        "datasource": _SOURCE,
        # `{$}` selects by server; Grafana's own variables start with `$` and a letter or an underscore.
        "expr": expression.replace("{$}", "{" + _CHOSEN + "}"),
        "legendFormat": legend,
    }


def _chart(number: int, panel: Panel, x: int, y: int) -> dict[str, Any]:
    letters = "ABCDEFGH"
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.meaning,
        "datasource": _SOURCE,
        "gridPos": {"x": x, "y": y, "w": _WIDTH, "h": _HEIGHT},
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": panel.least}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": [_target(letter, *query) for letter, query in zip(letters, panel.queries, strict=False)],
    }


def _panels() -> Iterator[dict[str, Any]]:
    numbers, y = itertools.count(1), 0
    for row in ROWS:
        heading = {"type": "row", "title": row.title, "collapsed": False, "panels": []}
        yield {"id": next(numbers), **heading, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}}
        y += 1
        for index, panel in enumerate(row.panels):
            across, down = index % _COLUMNS, index // _COLUMNS
            yield _chart(next(numbers), panel, across * _WIDTH, y + down * _HEIGHT)
        y += -(-len(row.panels) // _COLUMNS) * _HEIGHT


def dashboard() -> str:
    """The dashboard as JSON text."""
    servers = {
        "name": "instance",
        "label": "server",
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": "label_values(ssjf_max_inflight, instance)", "refId": "servers"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    page = {
        "uid": "ssjf",
        "title": "Shortest job first",
        "tags": ["triton", "llm"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [servers]},
        "panels": list(_panels()),
    }
    return json.dumps(page, indent=1, ensure_ascii=False) + "\n"


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/dashboard", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 when it is not up to date")
    options = parser.parse_args(argv)
    current = DASHBOARD.is_file() and DASHBOARD.read_text(encoding="utf-8") == dashboard()
    if not options.check and not current:
        DASHBOARD.write_text(dashboard(), encoding="utf-8")
        print(f"written: {DASHBOARD.relative_to(CHECKOUT)}")
    return 1 if options.check and not current else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
