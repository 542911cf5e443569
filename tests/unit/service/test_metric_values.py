"""The numbers behind the names: gauges of the present state, totals as increments, observations of finished answers."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ssjf.core.settings import CoreSettings
from ssjf.service.metrics import Labels, MetricsThread, Sample, gauges, observations, predicted_class, totals
from ssjf.service.outcome import Outcome
from ssjf.service.records import FinishedRow
from tests.unit.service.harness import Bench, run

TRUE = np.array([[True]])
ROW = FinishedRow(
    outcome=Outcome.FINISHED,
    request_id="",
    tenant="",
    priority_class=0,
    policy="ssjf",
    prompt_tokens=7,
    predicted_tokens=100,
    predicted_by="proxy",
    output_tokens=60,
    queue_s=0.5,
    ttft_s=0.75,
    jct_s=2.0,
)


class Recorded:
    """A metrics backend that remembers every call; the first `failures` of them fail."""

    def __init__(self, failures: int = 0) -> None:
        self.gauges: dict[str, list[float]] = defaultdict(list)
        self.added: dict[str, list[float]] = defaultdict(list)
        self.observed: dict[str, list[float]] = defaultdict(list)
        self._failures = failures

    def set_gauge(self, name: str, labels: Labels, value: float) -> None:
        self.gauges[named(name, labels.items())].append(value)

    def add(self, name: str, labels: Labels, amount: float) -> None:
        self.added[named(name, labels.items())].append(amount)

    def observe(self, name: str, labels: Labels, value: float) -> None:
        if self._failures:
            self._failures -= 1
            raise OSError("shared memory is full")
        self.observed[named(name, labels.items())].append(value)


def named(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """`name{label=value}`, as in a query."""
    labels = ",".join(f"{key}={value}" for key, value in pairs)
    return f"{name}{{{labels}}}" if labels else name


def by_name(samples: Iterable[Sample]) -> dict[str, float]:
    return {named(name, pairs): value for name, pairs, value in samples}


async def recorded(bench: Bench, count: int) -> None:
    """An answer is complete a moment before it is counted."""
    await bench.until(lambda: len(bench.records) == count)


def outcomes(bench: Bench) -> dict[str, float]:
    """The requests that have ended, by outcome."""
    head = "ssjf_requests_total{outcome="
    found = by_name(totals(bench.service))
    return {key.removeprefix(head).rstrip("}"): value for key, value in found.items() if key.startswith(head)}


# -- the thread --------------------------------------------------------------------------------------------------------


def test_totals_become_increments() -> None:
    backend = Recorded()

    async def scenario(bench: Bench) -> None:
        thread = MetricsThread(lambda: backend)
        thread.start()
        for texts, ended in ((["hello"], 1), (["a", "bc"], 3), ([], 3)):
            await bench.ended(*[bench.send(text) for text in texts])
            await recorded(bench, ended)
            thread.watch(bench.service, asyncio.get_running_loop())
        thread.stop(5)

    run(scenario)
    assert backend.added["ssjf_requests_total{outcome=finished}"] == [1, 2, 0]
    assert backend.added["ssjf_output_tokens_total"] == [5, 3, 0]
    assert backend.added["ssjf_predictions_total{source=proxy}"] == [1, 2, 0]
    assert backend.gauges["ssjf_max_inflight"] == [2, 2, 2]  # a gauge is what it is, not what it grew by


def test_finished_answers_are_observed_and_a_failure_ends_neither_the_thread_nor_the_rest() -> None:
    backend = Recorded(failures=1)
    thread = MetricsThread(lambda: backend)
    thread.start()
    for queue_s in (0.1, 0.2, 0.3):
        thread.observe(replace(ROW, queue_s=queue_s))
    thread.stop(5)
    assert backend.observed["ssjf_queue_time_seconds{policy=ssjf,predicted=le_128}"] == [0.2, 0.3]
    assert backend.observed["ssjf_actual_tokens"] == [60, 60]


# -- histograms --------------------------------------------------------------------------------------------------------


def test_the_observations_of_a_finished_answer() -> None:
    labels = "{policy=ssjf,predicted=le_128}"
    assert {named(name, pairs.items()): value for name, pairs, value in observations(ROW)} == {
        f"ssjf_queue_time_seconds{labels}": 0.5,
        f"ssjf_ttft_seconds{labels}": 0.75,
        f"ssjf_jct_seconds{labels}": 2.0,
        "ssjf_predicted_tokens": 100,
        "ssjf_actual_tokens": 60,
    }


def test_an_answer_that_did_not_stream_has_no_time_to_first_token() -> None:
    assert "ssjf_ttft_seconds" not in [name for name, _labels, _value in observations(replace(ROW, ttft_s=None))]


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if outcome is not Outcome.FINISHED])
def test_what_ended_otherwise_is_not_observed(outcome: Outcome) -> None:
    assert list(observations(replace(ROW, outcome=outcome))) == []


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [(1, "le_32"), (32, "le_32"), (33, "le_128"), (128, "le_128"), (129, "le_512"), (512, "le_512"), (513, "more")],
)
def test_classes_of_predicted_length(tokens: int, expected: str) -> None:
    assert predicted_class(tokens) == expected


# -- counters ----------------------------------------------------------------------------------------------------------


def test_every_request_counts_under_its_outcome() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running = bench.send("running")
        await bench.until(lambda: bench.engine.started == ["running"])
        leaving, late = bench.send("leaving"), bench.send("late", parameters={"deadline_ms": 30})
        refused = [bench.send("refused"), bench.send("refused too")]
        invalid = bench.send("x", temperature=np.array([[np.nan]], np.float32))
        await bench.ended(late, invalid, *refused)
        leaving.gone = True
        await bench.ended(leaving)
        bench.engine.gate.set()
        await bench.ended(running)
        stopped = bench.send("stopped", request_id="a", stream=TRUE)
        bench.engine.gate.clear()
        await bench.ended(bench.send("!refuse"), bench.send(request_id="a", stop=TRUE), stopped)
        await bench.until(lambda: sum(outcomes(bench).values()) == 8)
        assert outcomes(bench) == {
            "finished": 1, "stopped": 1, "cancelled": 1, "expired": 1, "rejected": 2, "invalid": 1, "engine_error": 1,
        }  # fmt: skip

    run(scenario, CoreSettings(max_inflight=1, max_queue=2))


def test_predictions_count_by_their_source() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.ended(bench.send("one"))
        bench.preparation.predicts = False
        await bench.ended(bench.send("two"), bench.send("three"))
        found = by_name(totals(bench.service))
        assert found["ssjf_predictions_total{source=proxy}"] == 1
        assert found["ssjf_predictions_total{source=prior}"] == 2

    run(scenario)


def test_promotions_are_the_jobs_that_had_waited_for_too_long() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running = bench.send("running")
        await bench.until(lambda: bench.engine.started == ["running"])
        waiting = [bench.send("long, but asked first"), bench.send("short")]
        assert by_name(totals(bench.service))["ssjf_promotions_total"] == 0
        await asyncio.sleep(0.1)
        bench.engine.gate.set()
        await bench.ended(running, *waiting)
        assert by_name(totals(bench.service))["ssjf_promotions_total"] == 2
        await bench.ended(bench.send("quick"))
        assert by_name(totals(bench.service))["ssjf_promotions_total"] == 2

    run(scenario, CoreSettings(policy="ssjf", max_inflight=1, max_wait_s=0.05))


def test_a_job_that_is_queued_again_and_the_failure_behind_it_are_counted() -> None:
    async def scenario(bench: Bench) -> None:
        client = bench.send("!break", max_tokens=np.array([[8]], np.int32))
        await bench.ended(client)
        found = by_name(totals(bench.service))
        assert (found["ssjf_requeued_total"], found["ssjf_engine_failures_total{endpoint=fake}"]) == (1, 2)

    run(scenario)


# -- gauges ------------------------------------------------------------------------------------------------------------


def test_gauges_are_the_state_of_queue_and_engine() -> None:
    async def scenario(bench: Bench) -> None:
        bench.engine.gate.clear()
        running = bench.send("running")
        await bench.until(lambda: bench.engine.started == ["running"])
        classes: tuple[dict[str, Any], ...] = ({}, {}, {"priority_class": 2})
        waiting = [bench.send("x" * length, parameters=given) for length, given in zip((3, 4, 5), classes, strict=True)]
        await asyncio.sleep(0.05)
        found = by_name(gauges(bench.service))
        assert 0.05 <= found.pop("ssjf_queue_oldest_wait_seconds") < 10
        assert found.pop("ssjf_relay_lag_seconds") >= 0
        assert found == {
            "ssjf_queue_requests{priority_class=0}": 2,
            "ssjf_queue_backlog_tokens{priority_class=0}": 7,
            "ssjf_queue_requests{priority_class=2}": 1,
            "ssjf_queue_backlog_tokens{priority_class=2}": 5,
            "ssjf_waiting_requests": 3,
            "ssjf_inflight_requests": 1,
            "ssjf_inflight_tokens": len("running") * 2,  # prompt and prediction
            "ssjf_max_inflight": 1,
            "ssjf_guardrail_active": 0,
            "ssjf_engine_up{endpoint=fake}": 1,
            "ssjf_engine_inflight_requests{endpoint=fake}": 1,
            "ssjf_relay_backlog": 0,
        }  # no prediction_tau and no prediction_bias before enough answers were seen
        bench.engine.gate.set()
        await bench.ended(running, *waiting)
        await recorded(bench, 4)
        found = by_name(gauges(bench.service))
        # Not the last value: a class that has emptied would wait for ever on the dashboard.
        assert found["ssjf_queue_requests{priority_class=2}"] == found["ssjf_waiting_requests"] == 0
        assert found["ssjf_inflight_tokens"] == found["ssjf_queue_oldest_wait_seconds"] == 0

    run(scenario, CoreSettings(max_inflight=1))


def test_the_guardrail_shows_when_it_orders_by_arrival() -> None:
    async def scenario(bench: Bench) -> None:
        bench.core.guardrail.fallen, bench.core.guardrail.tau, bench.core.guardrail.bias = True, -0.25, 3.0
        found = by_name(gauges(bench.service))
        assert found["ssjf_guardrail_active"] == 1
        assert (found["ssjf_prediction_tau"], found["ssjf_prediction_bias"]) == (-0.25, 3.0)

    run(scenario)
