"""Metrics: what is published, and the one thread that may touch Triton's metric objects.

A `pb_utils` metric is not thread-safe: two threads incrementing one corrupt shared memory and end the server. So the
event loop only posts records and snapshots, and this module's thread owns every metric object.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Literal, Protocol

from ssjf.service.outcome import Outcome
from ssjf.service.records import FinishedRow

if TYPE_CHECKING:
    from ssjf.service.service import Service

log = logging.getLogger("ssjf.metrics")

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
_TOKENS = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0)
PREDICTED_CLASSES: Final = (32, 128, 512)
_SNAPSHOT_PERIOD_S = 1.0
_BY_CLASS: Final = ("priority_class",)
_BY_ENGINE: Final = ("endpoint",)
_BY_POLICY: Final = ("policy", "predicted")
_ENGINE_UP: Final = {"up": 1.0, "trial": 0.5, "out": 0.0}

Kind = Literal["counter", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric family. Names follow Prometheus conventions: base units, `_total` for counters."""

    name: str
    kind: Kind
    help: str
    buckets: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()


METRICS: Final = (
    MetricSpec("ssjf_queue_requests", "gauge", "Jobs that wait, by priority class", labels=_BY_CLASS),
    MetricSpec("ssjf_waiting_requests", "gauge", "Jobs that wait, all classes: for routers that cannot add up"),
    MetricSpec(
        "ssjf_queue_backlog_tokens",
        "gauge",
        "Predicted output tokens of the waiting jobs, by priority class",
        labels=_BY_CLASS,
    ),
    MetricSpec("ssjf_queue_oldest_wait_seconds", "gauge", "How long the job that waits longest has waited"),
    MetricSpec("ssjf_inflight_requests", "gauge", "Jobs that the engine has"),
    MetricSpec("ssjf_inflight_tokens", "gauge", "Prompt and predicted output tokens of the jobs that the engine has"),
    MetricSpec("ssjf_max_inflight", "gauge", "Engine slots that the scheduler fills"),
    MetricSpec("ssjf_prediction_tau", "gauge", "Kendall's tau_b of predicted against actual lengths, recent answers"),
    MetricSpec("ssjf_prediction_bias", "gauge", "Predicted over actual output tokens, recent answers"),
    MetricSpec("ssjf_guardrail_active", "gauge", "1 while the guardrail orders by arrival because predictions mislead"),
    MetricSpec("ssjf_promotions_total", "counter", "Jobs dispatched because they had waited max_wait"),
    MetricSpec(
        "ssjf_requests_total",
        "counter",
        "Ended requests, by outcome; of a batched call each row that ends well, and once an error, which ends it whole",
        labels=("outcome",),
    ),
    MetricSpec(
        "ssjf_predictions_total",
        "counter",
        "Predictions that requests came into the queue with, by source (proxy, prior, client)",
        labels=("source",),
    ),
    MetricSpec(
        "ssjf_late_predictions_total",
        "counter",
        "Jobs that came with the prior and were ordered anew by the proxy's word while they waited",
    ),
    MetricSpec("ssjf_output_tokens_total", "counter", "Output tokens received from the engine"),
    MetricSpec("ssjf_responses_total", "counter", "Responses sent to clients"),
    MetricSpec("ssjf_responses_merged_total", "counter", "Engine responses merged into a waiting one"),
    MetricSpec("ssjf_relay_lag_seconds", "gauge", "Longest wait of a response for the sender, in the last second"),
    MetricSpec("ssjf_relay_backlog", "gauge", "Requests whose responses wait for the sender"),
    MetricSpec(
        "ssjf_engine_up",
        "gauge",
        "1 while the engine endpoint gets jobs, 0.5 while on trial, 0 while out",
        labels=_BY_ENGINE,
    ),
    MetricSpec("ssjf_engine_inflight_requests", "gauge", "Jobs that an engine endpoint has", labels=_BY_ENGINE),
    MetricSpec(
        "ssjf_engine_failures_total", "counter", "How often an engine endpoint was taken out", labels=_BY_ENGINE
    ),
    MetricSpec(
        "ssjf_engine_foreign_requests_total",
        "counter",
        "Requests that reached the engine past the scheduler",
        labels=_BY_ENGINE,
    ),
    MetricSpec("ssjf_requeued_total", "counter", "Jobs queued again because their engine endpoint failed"),
    MetricSpec("ssjf_journal_records_total", "counter", "Records written to the journal"),
    MetricSpec(
        "ssjf_journal_dropped_total",
        "counter",
        "Records lost, by reason: queue (too many wait), write (disk)",
        labels=("reason",),
    ),
    MetricSpec(
        "ssjf_queue_time_seconds",
        "histogram",
        "Arrival to dispatch, by policy and predicted length",
        _SECONDS,
        labels=_BY_POLICY,
    ),
    MetricSpec(
        "ssjf_ttft_seconds",
        "histogram",
        "Arrival to first token of streamed answers, by policy and predicted length",
        _SECONDS,
        labels=_BY_POLICY,
    ),
    MetricSpec(
        "ssjf_jct_seconds",
        "histogram",
        "Arrival to last token, by policy and predicted length",
        _SECONDS,
        labels=_BY_POLICY,
    ),
    MetricSpec("ssjf_predicted_tokens", "histogram", "Predicted output tokens of finished jobs", _TOKENS),
    MetricSpec("ssjf_actual_tokens", "histogram", "Actual output tokens of finished jobs", _TOKENS),
)

Labels = Mapping[str, str]


class MetricsBackend(Protocol):
    """Where metrics go. Made and used on the metrics thread only."""

    def set_gauge(self, name: str, labels: Labels, value: float) -> None: ...

    def add(self, name: str, labels: Labels, amount: float) -> None: ...

    def observe(self, name: str, labels: Labels, value: float) -> None: ...


# Name, labels, value.
Sample = tuple[str, tuple[tuple[str, str], ...], float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state at one moment: gauges, and totals of counters that the loop keeps itself."""

    gauges: tuple[Sample, ...]
    totals: tuple[Sample, ...]


class MetricsThread:
    """`observe` (from the loop) posts a record; `watch` makes the loop post a snapshot every second."""

    def __init__(self, make_backend: Callable[[], MetricsBackend]):
        self._make_backend = make_backend
        self._queue: SimpleQueue[FinishedRow | Snapshot | None] = SimpleQueue()
        self._totals: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._thread = threading.Thread(target=self._run, name="ssjf-metrics", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._queue.put(None)
        self._thread.join(timeout_s)

    def observe(self, record: FinishedRow) -> None:
        self._queue.put(record)

    def watch(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        """Post a snapshot now and every second from now on. Called on the loop."""
        self._queue.put(Snapshot(tuple(gauges(service)), tuple(totals(service))))
        loop.call_later(_SNAPSHOT_PERIOD_S, self.watch, service, loop)

    def _run(self) -> None:
        backend = self._make_backend()
        while (message := self._queue.get()) is not None:
            try:
                self._publish(backend, message)
            except Exception:  # metrics must never end the service
                log.exception("metrics could not be published")

    def _publish(self, backend: MetricsBackend, message: FinishedRow | Snapshot) -> None:
        if isinstance(message, FinishedRow):
            for name, labels, value in observations(message):
                backend.observe(name, labels, value)
            return
        for name, pairs, value in message.gauges:
            backend.set_gauge(name, dict(pairs), value)
        for name, pairs, total in message.totals:
            grown = total - self._totals.get((name, pairs), 0.0)
            self._totals[name, pairs] = total
            backend.add(name, dict(pairs), max(grown, 0.0))


def observations(row: FinishedRow) -> Iterator[tuple[str, Labels, float]]:
    """The histogram values of one finished row; rows that ended otherwise would blur them."""
    if row.outcome is not Outcome.FINISHED:
        return
    labels = {"policy": row.policy, "predicted": predicted_class(row.predicted_tokens)}
    times = {"ssjf_queue_time_seconds": row.queue_s, "ssjf_ttft_seconds": row.ttft_s, "ssjf_jct_seconds": row.jct_s}
    for name, value in times.items():
        if value is not None:
            yield name, labels, value
    yield "ssjf_predicted_tokens", {}, float(row.predicted_tokens)
    yield "ssjf_actual_tokens", {}, float(row.output_tokens)


def predicted_class(tokens: int) -> str:
    """A handful of length classes as a label: `le_32`, `le_128`, `le_512`, `more`."""
    return next((f"le_{edge}" for edge in PREDICTED_CLASSES if tokens <= edge), "more")


def gauges(service: Service) -> Iterator[Sample]:
    """The present state. Priority classes that have emptied are reported as 0, not as their last value."""
    state = service.snapshot()
    for priority_class in service.seen_priority_classes(state):
        label = (("priority_class", str(priority_class)),)
        yield "ssjf_queue_requests", label, state.queue_lengths.get(priority_class, 0)
        yield "ssjf_queue_backlog_tokens", label, state.backlog_tokens.get(priority_class, 0.0)
    yield "ssjf_waiting_requests", (), state.queue_length
    yield "ssjf_queue_oldest_wait_seconds", (), state.oldest_wait_s
    yield "ssjf_inflight_requests", (), state.in_flight
    yield "ssjf_inflight_tokens", (), state.tokens_in_flight
    yield "ssjf_max_inflight", (), state.limits.max_inflight
    yield "ssjf_guardrail_active", (), float(state.guardrail_fallen)
    if state.tau is not None:
        yield "ssjf_prediction_tau", (), state.tau
    if state.bias is not None:
        yield "ssjf_prediction_bias", (), state.bias
    for engine in service.engine_state():
        label = (("endpoint", engine["url"]),)
        yield "ssjf_engine_up", label, _ENGINE_UP[engine["state"]]
        yield "ssjf_engine_inflight_requests", label, engine["in_flight"]
    relay = service.relay_state()
    yield "ssjf_relay_lag_seconds", (), service.take_worst_lag_s()
    yield "ssjf_relay_backlog", (), relay["relay_backlog"]


def totals(service: Service) -> Iterator[Sample]:
    """Counters since the start; the metrics thread turns them into increments."""
    state = service.snapshot()
    yield "ssjf_promotions_total", (), state.promotions
    yield "ssjf_requeued_total", (), state.requeued
    yield "ssjf_late_predictions_total", (), state.repredicted
    for engine in service.engine_state():
        yield "ssjf_engine_failures_total", (("endpoint", engine["url"]),), engine["failures"]
        yield "ssjf_engine_foreign_requests_total", (("endpoint", engine["url"]),), engine["foreign_requests"]
    if service.journal is not None:
        yield "ssjf_journal_records_total", (), service.journal.counts.written
        for reason, count in service.journal.counts.dropped.items():
            yield "ssjf_journal_dropped_total", (("reason", reason),), count
    for outcome, count in service.recorder.outcomes.items():
        yield "ssjf_requests_total", (("outcome", outcome.value),), count
    for source, count in service.recorder.predictions.items():
        yield "ssjf_predictions_total", (("source", source),), count
    relay = service.relay_state()
    yield "ssjf_output_tokens_total", (), service.recorder.output_tokens
    yield "ssjf_responses_total", (), relay["responses_sent"]
    yield "ssjf_responses_merged_total", (), relay["responses_merged"]
