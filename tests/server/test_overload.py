"""More than the server can do: refused at once and by name, and afterwards as if nothing had been."""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from tritonclient.grpc import aio
from tritonclient.utils import InferenceServerException

from ssjf_client import Client
from ssjf_tools.bench.overhead import INSTANT_ENGINE
from ssjf_tools.bench.streams import StreamClient, text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import ask, inputs, tensors, wait_for
from tests.server.crowd import End, count_kinds, end_of

pytestmark = [pytest.mark.server, pytest.mark.slow]

SECONDS = float(os.environ.get("SSJF_TEST_OVERLOAD_SECONDS", "20"))  # of overload; 60 for the long run
TIMES = 10  # the capacity
SLOTS, STEP_S, TOKENS = 2, 0.01, 10
CAPACITY = SLOTS / (STEP_S * TOKENS)  # requests a second
MAX_QUEUE = 20
DEADLINE_S = 0.5
IMMEDIATELY_S = 0.25  # measured: a few milliseconds
CLIENT_TIMEOUT_S = 60.0
OUTCOMES = ("finished", "expired")
REFUSED = re.compile(r"the queue is full: (\d+) requests wait, .*; retry in (\d+\.\d+) s")


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("journal") / "requests.jsonl"


@pytest.fixture(scope="module")
def small(journal: Path) -> Iterator[Throwaway]:
    """Two slots of an engine that makes a token every 10 ms, and room for twenty to wait."""
    settings = {"SSJF_MAX_INFLIGHT": str(SLOTS), "SSJF_MAX_QUEUE": str(MAX_QUEUE), "SSJF_STEP_S": str(STEP_S)}
    with throwaway_server(settings | {"SSJF_JOURNAL_PATH": str(journal)}, INSTANT_ENGINE) as running:
        yield running


async def flood(
    server: Throwaway, door: str, seconds: float, lengths: Sequence[int] = (TOKENS,), **parameters: object
) -> list[End]:
    """TIMES the capacity for `seconds`, at fixed moments, whatever the server does; every request's end."""
    client, loop = StreamClient(server.grpc_url), asyncio.get_running_loop()
    begun, period = loop.time(), 1 / (TIMES * CAPACITY)
    under_way = []
    for number in range(round(seconds / period)):
        await asyncio.sleep(max(0.0, begun + number * period - loop.time()))
        request = text_request(f"Request number {number}", lengths[number % len(lengths)])
        ending = end_of(client, door, request, CLIENT_TIMEOUT_S, **parameters)
        under_way.append(asyncio.ensure_future(ending))
    ends = await asyncio.gather(*under_way)
    await client.close()
    return ends


def assert_normal_service(server: Throwaway) -> None:
    with Client(server.grpc_url) as client:
        wait_for(client, server.token, lambda status: status.live_requests == 0 and status.in_flight == 0)
        for _ in range(5):
            assert client.generate("Say hello.", max_tokens=TOKENS).output_tokens == TOKENS
        assert client.status(server.token).queue_length == 0


@pytest.mark.parametrize("door", ["scheduler", "ensemble"])
def test_overload_is_refused_with_queue_length_and_retry_estimate(small: Throwaway, door: str) -> None:
    asyncio.run(flood(small, door, 4.0))  # warm-up: pools, arenas and caches reach their size
    before = small.resident_mib()
    ends = asyncio.run(flood(small, door, SECONDS))
    after = small.resident_mib()
    assert_normal_service(small)
    refused = [end for end in ends if end.kind == "error"]
    answered = [end for end in ends if end.kind == "answered"]
    quickly = statistics.median(end.seconds for end in refused)
    print(f"{door}: {len(ends)} requests in {SECONDS:g} s, {TIMES} x capacity: {dict(count_kinds(ends))}")
    share = len(answered) / SECONDS / CAPACITY
    print(f"answered {share:.0%} of capacity; refused after {quickly * 1e3:.0f} ms (median)")
    print(f"longest answer {max(end.seconds for end in answered):.2f} s; memory {before:.0f} to {after:.0f} MiB")
    assert len(answered) + len(refused) == len(ends) == round(SECONDS * TIMES * CAPACITY)
    assert {end.tokens for end in answered} == {TOKENS}
    for end in refused:
        match = REFUSED.search(end.text)
        assert match is not None, end.text
        # Those that are still being tokenized wait, too; a free slot leaves room for one more of them.
        assert MAX_QUEUE <= int(match[1]) <= MAX_QUEUE + SLOTS
        assert 0 < float(match[2]) < CLIENT_TIMEOUT_S
    # The ensemble's steps before the scheduler know nothing of its queue: a refusal waits for the proxy there.
    assert door == "ensemble" or quickly < IMMEDIATELY_S
    # What was taken in keeps the engine busy: refusing must not cost the throughput.
    assert len(answered) > 0.5 * CAPACITY * SECONDS
    assert after - before < 0.1 * before


def test_an_unmodified_unary_client_is_told_unavailable(small: Throwaway) -> None:
    """Plain `infer()` calls, many at once: an answer, or gRPC's own code for "try again later"."""

    async def calls() -> list[object]:
        async with aio.InferenceServerClient(small.grpc_url) as client:
            asked = (client.infer("unary", inputs(tensors("hello", TOKENS))) for _ in range(4 * MAX_QUEUE))
            return list(await asyncio.gather(*asked, return_exceptions=True))

    ends = asyncio.run(calls())
    refused = [end for end in ends if isinstance(end, InferenceServerException)]
    print(f"unary: {len(ends) - len(refused)} answered, {len(refused)} refused: {refused[0]}")
    assert {end.status() for end in refused} == {"StatusCode.UNAVAILABLE"}
    assert all(REFUSED.search(str(end)) for end in refused)
    assert len(ends) - len(refused) >= MAX_QUEUE
    assert_normal_service(small)


def test_none_is_answered_after_its_deadline(small: Throwaway, journal: Path) -> None:
    """Room for all to wait, so that it is their deadline that ends most of them; short ones first, so that some run."""
    control(small, "set_limits", limits=json.dumps({"max_queue": 10_000}))
    control(small, "set_policy", policy="ssjf")
    known, lengths = len(lines_of(journal)), range(1, 2 * TOKENS)
    ends = asyncio.run(flood(small, "scheduler", SECONDS / 2, lengths, deadline_ms=round(DEADLINE_S * 1e3)))
    assert_normal_service(small)
    answered = [end for end in ends if end.kind == "answered"]
    lines = lines_of(journal)[known:]
    served = [line["jct_s"] for line in lines if line["outcome"] == "finished"]
    made = {outcome: sum(line["output_tokens"] for line in lines if line["outcome"] == outcome) for outcome in OUTCOMES}
    wasted = made["expired"] / sum(made.values())
    longest = max(end.seconds for end in answered)
    print(f"{dict(count_kinds(ends))}; longest answer {max(served):.3f} s, at the client {longest:.3f} s")
    print(f"{wasted:.0%} of the engine's tokens were thrown away")
    assert {end.kind for end in ends} == {"answered", "error"}
    assert [end.text for end in ends if end.kind == "error" and "deadline" not in end.text] == []
    assert len(answered) > 0.3 * CAPACITY * SECONDS / 2
    assert max(end.queue_s for end in answered) <= DEADLINE_S
    # Nobody is started who cannot be finished in time.
    assert wasted < 0.1
    # A timer of a busy loop may be late by a moment; the answer's last piece is taken before it fires.
    assert max(served) <= DEADLINE_S + 0.05


def lines_of(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def control(server: Throwaway, what: str, **parameters: str) -> None:
    asked: dict[str, Any] = {"control": what, "control_token": server.token, **parameters}
    assert ask(server.grpc_url, "scheduler", tensors("x", 1), **asked).error is None
