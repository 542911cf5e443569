"""`scripts/bench-scale`: what one scheduler costs with many engines, and how many requests a second it takes in."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ssjf.core.settings import CoreSettings
from ssjf.service.engine.pool import EnginePool, PoolSettings
from ssjf.service.messages import EngineChunk, EngineRequest
from ssjf_client import AsyncClient
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve.throwaway import throwaway_server

ENDPOINTS = (1, 10, 100, 1000)
SLOTS = 64
_ENGINE = {"tensorrt_llm": CHECKOUT / "scripts" / "ssjf_tools" / "bench" / "instant_llm"}
_PROMPT = "What is the capital of France?"


@dataclass(frozen=True, slots=True)
class Choosing:
    """Microseconds to find and take a slot, milliseconds to describe all endpoints for status and metrics."""

    endpoints: int
    choose_us: float
    describe_ms: float


@dataclass(frozen=True, slots=True)
class Intake:
    """Whole answers through the `scheduler` door with so many requests under way; median in milliseconds."""

    at_once: int
    requests_per_s: float
    median_ms: float


class _Nowhere:
    """An endpoint that is only counted."""

    def __init__(self, number: int):
        self.url = f"engine-{number}:8001"

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        yield EngineChunk(0)  # nobody asks

    async def is_ready(self, timeout_s: float) -> bool:
        return True

    async def close(self) -> None:
        return


def choosing(endpoints: int) -> Choosing:
    """What one dispatch pays for the number of endpoints."""
    pool = EnginePool([_Nowhere(number) for number in range(endpoints)], PoolSettings(SLOTS), time.monotonic)
    limits, rounds = CoreSettings(max_inflight=SLOTS * endpoints), max(200, 20_000 // endpoints)
    begun = time.perf_counter()
    for _ in range(rounds):
        pool.capacity(limits)
        pool.release(pool.take())
    chosen = time.perf_counter()
    for _ in range(10):
        pool.describe()
    described = time.perf_counter()
    return Choosing(endpoints, (chosen - begun) / rounds * 1e6, (described - chosen) / 10 * 1e3)


async def intake(url: str, requests: int, at_once: int) -> Intake:
    """Sends `requests`, `at_once` of them under way; answers of 40 tokens that the engine gives at once."""
    room, times = asyncio.Semaphore(at_once), []
    async with AsyncClient(url) as client:

        async def one() -> None:
            async with room:
                begun = time.perf_counter()
                await client.generate(_PROMPT, max_tokens=40)
                times.append(time.perf_counter() - begun)

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(requests)))
        return Intake(at_once, requests / (time.perf_counter() - begun), sorted(times)[requests // 2] * 1e3)


def main(argv: Sequence[str]) -> int:
    """Prints both tables."""
    parser = argparse.ArgumentParser(prog="scripts/bench-scale", description=__doc__)
    parser.add_argument("--requests", type=int, default=1500, metavar="N", help="for each row (default: %(default)s)")
    parser.add_argument("--no-server", action="store_true", help="only the part that needs no server")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the figures here")
    options = parser.parse_args(argv)
    found: dict[str, list[dict[str, Any]]] = {
        "choosing": [asdict(choosing(count)) for count in ENDPOINTS],
        "intake": [],
    }
    for row in found["choosing"]:
        print(
            f"{row['endpoints']:>5} endpoints: {row['choose_us']:8.0f} µs a choice, {row['describe_ms']:.1f} ms status"
        )
    if not options.no_server:
        with throwaway_server({"SSJF_MAX_INFLIGHT": str(SLOTS)}, _ENGINE) as server:
            asyncio.run(intake(server.grpc_url, 100, 8))  # warm
            for at_once in (32, 128):
                result = asyncio.run(intake(server.grpc_url, options.requests, at_once))
                found["intake"].append(asdict(result))
                print(f"{at_once:>5} at once: {result.requests_per_s:.0f} requests/s, median {result.median_ms:.0f} ms")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
