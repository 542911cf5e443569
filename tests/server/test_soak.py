"""Two thousand requests from 64 clients, a tenth of them cancelled at random moments, half of those at `scheduler`.

scripts/test -- tests/server/test_soak.py -s                        an engine that costs nothing (20 s)
SSJF_SOAK_ENGINE=cpu scripts/test -- tests/server/test_soak.py -s   the CPU profile's model (some minutes)
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from ssjf_client import Client
from ssjf_tools.bench.overhead import INSTANT_ENGINE
from ssjf_tools.bench.streams import StreamClient, text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import wait_for

CLIENTS = 64
REQUESTS = 2000
WARM_UP = 400
LEAVES = (18, 19)  # of every twenty, the longest: one behind `ensemble`, which is seldom told, and one at `scheduler`
SEED = 7
PATIENCE_S = 150.0 if os.environ.get("SSJF_SOAK_ENGINE") != "cpu" else 900.0

pytestmark = pytest.mark.timeout(2 * PATIENCE_S + 60)


@pytest.fixture(scope="module")
def instant_server() -> Iterator[Throwaway]:
    """An engine that answers 20 tokens in 20 ms, so that requests live long enough to be cancelled in every state."""
    models = {} if os.environ.get("SSJF_SOAK_ENGINE") == "cpu" else INSTANT_ENGINE
    with throwaway_server({"SSJF_MAX_INFLIGHT": "16", "SSJF_INSTANT_STEP_S": "0.001"}, models) as running:
        yield running


async def storm(server: Throwaway, requests: int, seed: int) -> Counter[str]:
    """Clients send one request after the other; how each of them ended, by what came over the wire."""
    client = StreamClient(server.grpc_url)
    left = iter(range(requests))
    ends: Counter[str] = Counter()
    usual_s = 0.1  # that an answer takes; a running mean, so that who leaves does so before its end on any machine

    async def one_client(number: int) -> None:
        nonlocal usual_s
        chance = random.Random(seed * 1000 + number)
        for at in left:
            door = "scheduler" if at % 2 else "ensemble"
            request = client.stream(door, text_request(f"Request number {at}", 1 + at % 20))
            task = asyncio.ensure_future(request)
            if at % 20 in LEAVES:
                await asyncio.wait({task}, timeout=chance.random() * usual_s)
                task.cancel()
            try:
                seen = await task
                usual_s += 0.05 * (seen.jct - usual_s)
                whole = seen.responses and seen.finals == 1
                ends["answered" if whole else f"{seen.responses} responses, {seen.finals} finals"] += 1
            except asyncio.CancelledError:
                ends["cancelled"] += 1
            except RuntimeError as error:
                ends[str(error)] += 1

    await asyncio.wait_for(asyncio.gather(*(one_client(number) for number in range(CLIENTS))), PATIENCE_S)
    await client.close()
    return ends


def test_every_request_ends_once_and_nothing_stays(instant_server: Throwaway) -> None:
    warm_up = asyncio.run(storm(instant_server, WARM_UP, SEED))  # pools, arenas and caches reach their size
    before = instant_server.resident_mib()
    ends = asyncio.run(storm(instant_server, REQUESTS, SEED + 1))
    with Client(instant_server.grpc_url) as client:
        state = wait_for(
            client,
            instant_server.token,
            lambda status: status.in_flight == status.queue_length == status.live_requests == 0,
        )
    after = instant_server.resident_mib()
    print(f"{dict(ends)}; memory {before:.0f} MiB before, {after:.0f} MiB after; {state.ended}")
    assert sum(ends.values()) == REQUESTS
    assert set(ends) <= {"answered", "cancelled"}
    meant = REQUESTS * len(LEAVES) // 20
    assert 0.7 * meant <= ends["cancelled"] <= meant  # some may be answered before they leave
    everything = warm_up + ends
    # Some were cancelled before they reached the scheduler; of those that it had, each ended in one way.
    assert set(state.ended) <= {"finished", "cancelled"}
    assert everything["answered"] <= state.ended["finished"]
    assert everything["cancelled"] / 4 <= state.ended["cancelled"] <= everything["cancelled"]
    assert sum(state.ended.values()) <= REQUESTS + WARM_UP
    assert after - before < 0.05 * before
