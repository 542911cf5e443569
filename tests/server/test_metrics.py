"""The metrics port of a real server: every metric of the table is there, and the numbers are those of what happened."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from ssjf.service.metrics import METRICS
from ssjf_client import Client, Status
from ssjf_tools.bench.overhead import INSTANT_ENGINE
from ssjf_tools.bench.streams import StreamClient, text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import TIMEOUT_S, wait_for

pytestmark = [pytest.mark.server]

LENGTHS = range(1, 13)  # of the answers, all of which come to their end
LONG = 1000  # 10 s
ENDED = {"finished": len(LENGTHS), "rejected": 1, "cancelled": 2}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Throwaway]:
    """One slot at 10 ms a token, one place to wait, and a guardrail that judges after eight answers."""
    settings = {
        "SSJF_MAX_INFLIGHT": "1",
        "SSJF_MAX_QUEUE": "1",
        "SSJF_STEP_S": "0.01",
        "SSJF_GUARDRAIL_MIN_ANSWERS": "8",
        "SSJF_GUARDRAIL_EVERY": "1",
        "SSJF_JOURNAL_PATH": str(tmp_path_factory.mktemp("metrics") / "requests.jsonl"),
    }
    with throwaway_server(settings, INSTANT_ENGINE) as server:
        yield server


@dataclass(frozen=True)
class Scrape:
    """One look at the metrics port. `samples`: values by name, added up over labels; `lines`: by name and labels."""

    samples: dict[str, float]
    lines: dict[str, float]

    def ended(self) -> dict[str, float]:
        head = 'ssjf_requests_total{outcome="'
        return {line[len(head) : -2]: value for line, value in self.lines.items() if line.startswith(head) and value}


def scrape(server: Throwaway) -> Scrape:
    with urllib.request.urlopen(server.metrics_url, timeout=10) as response:
        text = response.read().decode()
    samples: dict[str, float] = defaultdict(float)
    lines: dict[str, float] = {}
    for line in text.splitlines():
        if line.startswith("ssjf_"):
            name, value = line.rsplit(" ", 1)
            lines[name] = float(value)
            samples[name.partition("{")[0]] += float(value)
    return Scrape(dict(samples), lines)


async def answered_refused_and_cancelled(server: Throwaway) -> None:
    """Answers of LENGTHS; then a request that runs and one that waits, a third that is refused, and both leave."""
    client = StreamClient(server.grpc_url)

    async def until(in_flight: int, waiting: int) -> None:
        def there(status: Status) -> bool:
            return (status.in_flight, status.queue_length) == (in_flight, waiting)

        with Client(server.grpc_url) as asking:
            await asyncio.to_thread(wait_for, asking, server.token, there)

    for tokens in LENGTHS:
        await client.stream("scheduler", text_request("Say hello.", tokens))
    running = asyncio.ensure_future(client.stream("scheduler", text_request("Tell a story.", LONG)))
    await until(1, 0)
    waiting = asyncio.ensure_future(client.stream("scheduler", text_request("Tell a story.", LONG)))
    await until(1, 1)
    with pytest.raises(RuntimeError, match="the queue is full"):
        await client.stream("scheduler", text_request("Tell a story.", LONG))
    for task in (waiting, running):
        task.cancel()
    await asyncio.gather(waiting, running, return_exceptions=True)
    await until(0, 0)
    await client.close()


def published(server: Throwaway) -> Scrape:
    """Once it knows of all that has ended: a snapshot is published every second."""
    deadline = time.monotonic() + TIMEOUT_S
    while (found := scrape(server)).ended() != ENDED or found.samples.get("ssjf_inflight_requests"):
        assert time.monotonic() < deadline, found.lines
        time.sleep(0.2)
    return found


def test_every_metric_of_the_table_is_there_with_what_happened(small: Throwaway) -> None:
    asyncio.run(asyncio.wait_for(answered_refused_and_cancelled(small), TIMEOUT_S))
    found = published(small)
    names = {f"{spec.name}_count" if spec.kind == "histogram" else spec.name for spec in METRICS}
    assert names - set(found.samples) == set()
    values = found.samples
    assert values["ssjf_actual_tokens_sum"] == sum(LENGTHS)
    assert found.lines['ssjf_actual_tokens_bucket{le="8"}'] == sum(length <= 8 for length in LENGTHS)
    for name in ("queue_time_seconds", "ttft_seconds", "jct_seconds", "predicted_tokens", "actual_tokens"):
        assert values[f"ssjf_{name}_count"] == len(LENGTHS), name
    # An answer of n tokens takes n steps of 10 ms at least.
    assert values["ssjf_jct_seconds_sum"] > 0.01 * sum(LENGTHS)
    assert values["ssjf_output_tokens_total"] >= sum(LENGTHS)
    assert values["ssjf_responses_total"] >= len(LENGTHS) + 1
    assert (values["ssjf_max_inflight"], values["ssjf_inflight_requests"], values["ssjf_waiting_requests"]) == (1, 0, 0)
    assert (values["ssjf_engine_up"], values["ssjf_engine_failures_total"], values["ssjf_requeued_total"]) == (1, 0, 0)
    assert values["ssjf_journal_dropped_total"] == 0
    assert values["ssjf_journal_records_total"] >= len(LENGTHS) + 2
