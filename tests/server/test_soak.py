"""Two thousand requests from 64 clients, a tenth of them cancelled at random moments."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from ssjf_client import Client
from ssjf_tools.bench.overhead import INSTANT_ENGINE
from ssjf_tools.bench.streams import StreamClient, text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import wait_for

CLIENTS = 64
REQUESTS = 2000
SEED = 7


@pytest.fixture(scope="module")
def instant_server() -> Iterator[Throwaway]:
    """An engine that answers 20 tokens in 20 ms, so that requests live long enough to be cancelled in every state."""
    with throwaway_server(
        {"SSJF_MAX_INFLIGHT": "16", "SSJF_INSTANT_STEP_S": "0.001"}, models=INSTANT_ENGINE
    ) as running:
        yield running


def resident_mib(server: Throwaway) -> float:
    """Memory of the server and its stubs, MiB."""
    pids = [server.server.pid, *server.server.stubs().values()]
    fields = [Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0] for pid in pids]
    return sum(map(int, fields)) / 1024


async def storm(server: Throwaway, requests: int, seed: int) -> Counter[str]:
    """Clients send one request after the other; how each of them ended."""
    client = StreamClient(server.grpc_url)
    left = iter(range(requests))
    ends: Counter[str] = Counter()

    async def one_client(number: int) -> None:
        chance = random.Random(seed * 1000 + number)
        for at in left:
            door = "scheduler" if at % 2 else "ensemble"
            request = client.stream(door, text_request(f"Request number {at}", 1 + at % 20))
            task = asyncio.ensure_future(request)
            if at % 10 == 0:
                await asyncio.sleep(chance.random() * 0.3)
                task.cancel()
            try:
                ends["answered" if (await task).tokens else "empty"] += 1
            except asyncio.CancelledError:
                ends["cancelled"] += 1
            except RuntimeError as error:
                ends[str(error)] += 1

    await asyncio.wait_for(asyncio.gather(*(one_client(number) for number in range(CLIENTS))), 150)
    await client.close()
    return ends


def test_every_request_ends_once_and_nothing_stays(instant_server: Throwaway) -> None:
    asyncio.run(storm(instant_server, 400, SEED))  # warm-up: pools, arenas and caches reach their size
    before = resident_mib(instant_server)
    ends = asyncio.run(storm(instant_server, REQUESTS, SEED + 1))
    with Client(instant_server.grpc_url) as client:
        state = wait_for(
            client,
            instant_server.token,
            lambda status: status.in_flight == status.queue_length == status.live_requests == 0,
        )
    after = resident_mib(instant_server)
    print(f"{dict(ends)}; memory {before:.0f} MiB before, {after:.0f} MiB after; {state.ended}")
    assert sum(ends.values()) == REQUESTS
    assert set(ends) <= {"answered", "cancelled"}
    # Some were cancelled before they reached the scheduler; of those that it had, each ended in one way.
    assert ends["answered"] + 360 <= state.ended["finished"]
    assert sum(state.ended.values()) <= REQUESTS + 400
    assert after - before < 0.05 * before
