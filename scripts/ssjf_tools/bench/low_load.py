"""`scripts/bench-low-load`: what the scheduler costs where nothing has to wait, next to asking the engine directly.

The same requests (prompts, lengths, moments of sending) go at half of the engine's capacity through the `scheduler`
door and straight to the engine, in turns within one run: a block one way, then the other way, and the next pair in the
other order. The policy is the default one, every answer has a fixed length. The engine (`--engine`) is one that keeps
its own pace and costs this machine nothing, as a GPU would (`paced`: tensorrt_llm's tensors, 8 slots, a token each
25 ms), or the real one of the CPU profile (`cpu`), whose pace wanders by more than what is measured here.

A pair of blocks gives two differences as shares of the direct figure: mean JCT (less the time that the proxy was
measured to take alone) and tokens a second. Printed side by side, with the 95 % interval of the mean over the pairs;
the aim is that both intervals lie within 2 %.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from ssjf_tools.bench.overhead import INSTANT_ENGINE
from ssjf_tools.bench.streams import StreamClient, Timeline, engine_request, text_request
from ssjf_tools.serve.throwaway import throwaway_server

LENGTHS = (16, 32, 48, 96)  # output tokens, in turn
SHARE_OF_CAPACITY = 0.5
AIM = 0.02
PROMPTS = (
    "Explain in a few sentences why the sky is blue.",
    "Write a short letter to a friend about the sea.",
    "Name the planets and one fact about each of them.",
    "How do I boil an egg?",
)
SEED = 17
# Student's t, 97.5 %, by degrees of freedom from 1; beyond the table the normal value is near enough.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10, 2.09)
_T_FAR = 2.05


@dataclass(frozen=True, slots=True)
class Engine:
    """What answers: its slots, and how the server is started with it."""

    slots: int
    environment: Mapping[str, str] = field(default_factory=dict)
    models: Mapping[str, Path] = field(default_factory=dict)


ENGINES = {
    "paced": Engine(8, {"SSJF_INSTANT_STEP_S": "0.025", "SSJF_INSTANT_MAX_BATCH_SIZE": "8"}, INSTANT_ENGINE),
    "cpu": Engine(4),
}


@dataclass(frozen=True, slots=True)
class Request:
    """One request, the same in both arms: when it is sent (seconds after the block's begin), its tensors each way."""

    at: float
    direct: dict[str, NDArray[Any]]
    through: dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Block:
    """One arm of one pair: mean JCT in seconds, and tokens a second from the first request to the last token."""

    jct_s: float
    tokens_per_s: float

    @classmethod
    def of(cls, timelines: Sequence[Timeline]) -> Block:
        begun, ended = min(one.sent for one in timelines), max(one.last for one in timelines)
        tokens = sum(one.tokens for one in timelines)
        return cls(statistics.fmean(one.jct for one in timelines), tokens / (ended - begun))


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over the pairs and half the width of its 95 % interval."""

    value: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Mean:
        """At least two values."""
        freedom = len(values) - 1
        factor = _T[freedom - 1] if freedom <= len(_T) else _T_FAR
        return cls(statistics.fmean(values), factor * statistics.stdev(values) / math.sqrt(len(values)))

    def within(self, limit: float) -> bool:
        """Whether the whole interval lies within ± limit."""
        return abs(self.value) + self.half <= limit


async def prepared(client: StreamClient, rate: float, count: int, seed: int) -> list[Request]:
    """`count` requests, Poisson arrivals at `rate` a second; lengths are fixed by min_tokens = max_tokens."""
    chance, at, requests = Random(seed), 0.0, []
    for number in range(count):
        prompt, tokens = PROMPTS[number % len(PROMPTS)], LENGTHS[chance.randrange(len(LENGTHS))]
        text = np.array([[prompt.encode()]], dtype=np.object_)
        ids = (await client.infer("preprocessing", {"text_input": text}))["input_ids"]
        fixed = {"min_tokens": np.array([[tokens]], dtype=np.int32)}
        requests.append(Request(at, engine_request(ids, tokens, **fixed), text_request(prompt, tokens, **fixed)))
        at += chance.expovariate(rate)
    return requests


async def send(client: StreamClient, requests: Sequence[Request], through: bool) -> Block:
    """One block, open loop: each request at its moment, whatever became of the others."""
    loop = asyncio.get_running_loop()
    begun = loop.time()

    async def one(request: Request) -> Timeline:
        await asyncio.sleep(max(0.0, begun + request.at - loop.time()))
        if through:
            return await client.stream("scheduler", request.through)
        return await client.stream("tensorrt_llm", request.direct)

    return Block.of(await asyncio.gather(*map(one, requests)))


async def capacity(client: StreamClient, requests: Sequence[Request], at_once: int) -> float:
    """Requests a second that the engine answers with all its slots in use and nobody else asking."""
    slots, begun = asyncio.Semaphore(at_once), time.perf_counter()

    async def one(request: Request) -> None:
        async with slots:
            await client.stream("tensorrt_llm", request.direct)

    await asyncio.gather(*map(one, requests))
    return len(requests) / (time.perf_counter() - begun)


async def proxy_seconds(client: StreamClient, rounds: int) -> float:
    """Median time of one question to the proxy."""
    text = np.array([[PROMPTS[0].encode()]], dtype=np.object_)
    ready = await client.infer("preprocessing", {"text_input": text})
    inputs = {"input_ids": ready["proxy_input_ids"], "attention_mask": ready["proxy_attention_mask"]}
    taken = []
    for _ in range(rounds):
        begun = time.perf_counter()
        await client.infer("length_predictor", inputs)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


async def measure(url: str, slots: int, pairs: int, block_s: float) -> dict[str, Any]:
    """The whole run against one server; see the module's docstring."""
    client = StreamClient(url)
    warm = await prepared(client, 1.0, 4 * slots, SEED)
    for _ in range(2):  # the first round warms things up
        most = await capacity(client, warm, slots)
    await send(client, [Request(0.0, one.direct, one.through) for one in warm[:slots]], through=True)
    rate = SHARE_OF_CAPACITY * most
    proxy_s = await proxy_seconds(client, 20)
    direct: list[Block] = []
    through: list[Block] = []
    for pair in range(pairs):
        requests = await prepared(client, rate, max(2, round(rate * block_s)), SEED + pair)
        for is_through in (False, True) if pair % 2 == 0 else (True, False):
            (through if is_through else direct).append(await send(client, requests, is_through))
        print(f"pair {pair + 1}: mean JCT {direct[-1].jct_s:.3f} s directly, {through[-1].jct_s:.3f} s", flush=True)
    await client.close()
    return summary(direct, through, proxy_s) | {"capacity_per_s": most, "rate_per_s": rate, "pairs": pairs}


def summary(direct: Sequence[Block], through: Sequence[Block], proxy_s: float) -> dict[str, Any]:
    """The figures side by side; differences are shares of the direct figure of the same pair."""
    blocks = list(zip(direct, through, strict=True))
    jct = Mean.of([(b.jct_s - proxy_s - a.jct_s) / a.jct_s for a, b in blocks])
    rate = Mean.of([(b.tokens_per_s - a.tokens_per_s) / a.tokens_per_s for a, b in blocks])
    return {
        "direct_jct_s": statistics.fmean(a.jct_s for a in direct),
        "scheduler_jct_s": statistics.fmean(b.jct_s for b in through),
        "proxy_s": proxy_s,
        "jct_difference": jct.value,
        "jct_half_interval": jct.half,
        "direct_tokens_per_s": statistics.fmean(a.tokens_per_s for a in direct),
        "scheduler_tokens_per_s": statistics.fmean(b.tokens_per_s for b in through),
        "rate_difference": rate.value,
        "rate_half_interval": rate.half,
        "equal": jct.within(AIM) and rate.within(AIM),
    }


def show(figures: dict[str, Any]) -> None:
    """A table on the terminal."""
    table = Table("", "engine directly", "through the scheduler", "difference, 95 % interval", title="At half capacity")
    proxy_ms = figures["proxy_s"] * 1e3
    for name, part, unit in (("mean JCT", "jct", "s"), ("tokens a second", "tokens_per_s", "")):
        column = "jct_s" if part == "jct" else part
        key = "jct" if part == "jct" else "rate"
        difference, half = figures[f"{key}_difference"], figures[f"{key}_half_interval"]
        values = (f"{figures[f'{arm}_{column}']:.3f} {unit}".strip() for arm in ("direct", "scheduler"))
        table.add_row(name, *values, f"{difference:+.2%} ± {half:.2%}")
    Console().print(table)
    print(f"The proxy's {proxy_ms:.1f} ms are taken off the scheduler's JCT before it is compared.")
    print(f"{figures['rate_per_s']:.2f} requests a second of {figures['capacity_per_s']:.2f}; {figures['pairs']} pairs")
    print(f"Equal within {AIM:.0%}: {'yes' if figures['equal'] else 'not shown'}")


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench-low-load", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", choices=sorted(ENGINES), default="paced", help="what answers (default paced)")
    parser.add_argument("--pairs", type=int, default=8, help="pairs of blocks, at least 2 (default 8)")
    parser.add_argument("--block-s", type=float, default=8.0, help="seconds of arrivals in a block (default 8)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(argv)
    if options.pairs < 2:
        parser.error(f"--pairs is {options.pairs}, expected at least 2")
    engine = ENGINES[options.engine]
    environment = {**engine.environment, "SSJF_MAX_INFLIGHT": str(engine.slots)}
    with throwaway_server(environment, engine.models) as server:
        figures = asyncio.run(measure(server.grpc_url, engine.slots, options.pairs, options.block_s))
    show(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
