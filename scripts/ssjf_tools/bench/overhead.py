"""`scripts/bench-overhead`: what the scheduler costs next to asking the engine directly.

    latency   time to first token through `scheduler` minus that of the engine asked directly, the proxy's part apart
    rate      tokens a second at 16 streams, through the scheduler as a share of the direct rate
    paced     the same rate with an engine that keeps a GPU's pace and takes nothing from the machine
    relay     responses a second that the scheduler takes in from an engine that sends without a pause
    crowd     256 streams at a GPU's pace, and at one that two cores can carry: stalls, first tokens, memory
    refill    tokens a second of a full engine: what a freed slot waits for its next job, and what over_dispatch gives

Arms alternate within one run, since machines drift. Prints a table and, with --json, writes the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ssjf_client import AsyncClient
from ssjf_tools.bench.lean_engine import lean_engine
from ssjf_tools.bench.streams import StreamClient, Timeline, engine_request, text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server

INSTANT_ENGINE = {"tensorrt_llm": Path(__file__).parent / "instant_llm"}
PROMPT = "Explain in a few sentences why the sky is blue."
GPU_STEP_S = 0.025  # 40 tokens a second for each stream, as a large GPU sends
CROWD_STEPS_S = {"crowd": GPU_STEP_S, "slow crowd": 0.25}
PARTS = ("latency", "rate", "paced", "relay", *CROWD_STEPS_S, "refill")
SLOTS = 8
OVER_DISPATCH = (0, 1, 2, 4)
_THREE_IDS = np.array([[1, 2, 3]], dtype=np.int32)
_GREEDY = np.array([[1]], dtype=np.int32)


async def latency(server: Throwaway, rounds: int) -> dict[str, float]:
    """Medians over `rounds` alternating single requests, in milliseconds."""
    client = StreamClient(server.grpc_url)
    prepared = await client.infer("preprocessing", {"text_input": np.array([[PROMPT.encode()]], dtype=np.object_)})
    proxy_inputs = {"input_ids": prepared["proxy_input_ids"], "attention_mask": prepared["proxy_attention_mask"]}
    direct, through, proxy = [], [], []
    for turn in range(rounds + 2):
        one = await client.stream("tensorrt_llm", engine_request(prepared["input_ids"], 4, runtime_top_k=_GREEDY))
        two = await client.stream("scheduler", text_request(PROMPT, 4, top_k=_GREEDY))
        begun = time.perf_counter()
        await client.infer("length_predictor", proxy_inputs)
        if turn >= 2:  # the first two warm things up
            direct.append(one.ttft * 1e3)
            through.append(two.ttft * 1e3)
            proxy.append((time.perf_counter() - begun) * 1e3)
    await client.close()
    differences = [b - a for a, b in zip(direct, through, strict=True)]
    return {
        "direct_ttft_ms": statistics.median(direct),
        "scheduler_ttft_ms": statistics.median(through),
        "added_ms": statistics.median(differences),
        "proxy_call_ms": statistics.median(proxy),
        "added_without_proxy_ms": statistics.median(differences) - statistics.median(proxy),
    }


async def token_rate(server: Throwaway, engine_url: str, streams: int, tokens: int, rounds: int) -> dict[str, float]:
    """Tokens a second with `streams` at once, both ways in turn; the ratio is of the medians of `rounds`."""
    client, engine = StreamClient(server.grpc_url), StreamClient(engine_url)
    prepared = await client.infer("preprocessing", {"text_input": np.array([[PROMPT.encode()]], dtype=np.object_)})
    fixed = {"min_tokens": np.array([[tokens]], dtype=np.int32)}
    arms: dict[str, tuple[StreamClient, str, dict[str, Any]]] = {
        "direct": (engine, "tensorrt_llm", engine_request(prepared["input_ids"], tokens, **fixed)),
        "scheduler": (client, "scheduler", text_request(PROMPT, tokens, **fixed)),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, (asked, model, tensors) in arms.items():
            begun = time.perf_counter()
            timelines = await asyncio.gather(*(asked.stream(model, tensors) for _ in range(streams)))
            if turn:
                rates[name].append(sum(one.tokens for one in timelines) / (time.perf_counter() - begun))
    await client.close()
    await engine.close()
    direct, through = statistics.median(rates["direct"]), statistics.median(rates["scheduler"])
    paired = [b / a for a, b in zip(rates["direct"], rates["scheduler"], strict=True)]
    return {
        "streams": streams,
        "direct_tokens_per_s": direct,
        "scheduler_tokens_per_s": through,
        "share": statistics.median(paired),
    }


@dataclass(frozen=True, slots=True)
class Flood:
    """Many streams at once to one model, as their client saw them."""

    seconds: float
    timelines: list[Timeline]

    @property
    def tokens_per_s(self) -> float:
        return sum(one.tokens for one in self.timelines) / self.seconds

    @property
    def responses_per_s(self) -> float:
        return sum(one.responses for one in self.timelines) / self.seconds

    @property
    def longest_gap_ms(self) -> float:
        return max(one.longest_gap for one in self.timelines) * 1e3


async def flood(
    client: StreamClient, model: str, tensors: dict[str, Any], streams: int, within_s: float = 0.0
) -> Flood:
    """The same request `streams` times, begun at even distances `within_s` seconds."""
    begun = time.perf_counter()

    async def one(number: int) -> Timeline:
        await asyncio.sleep(within_s * number / streams)
        return await client.stream(model, tensors)

    timelines = await asyncio.gather(*map(one, range(streams)))
    return Flood(time.perf_counter() - begun, timelines)


async def relay_rate(server: Throwaway, engine_url: str, streams: int, tokens: int, rounds: int) -> dict[str, float]:
    """Engine responses (one token each) taken in a second: by this client directly, by the scheduler; after merging."""
    client, engine = StreamClient(server.grpc_url), StreamClient(engine_url)
    direct, through = [], []
    for turn in range(rounds + 1):
        one = await flood(engine, "tensorrt_llm", engine_request(_THREE_IDS, tokens), streams)
        two = await flood(client, "scheduler", text_request(PROMPT, tokens), streams)
        if turn:
            direct.append(one)
            through.append(two)
    await client.close()
    await engine.close()
    return {
        "streams": streams,
        "direct_responses_per_s": statistics.median(one.tokens_per_s for one in direct),
        "engine_responses_per_s": statistics.median(two.tokens_per_s for two in through),
        "share": statistics.median(b.tokens_per_s / a.tokens_per_s for a, b in zip(direct, through, strict=True)),
        "client_responses_per_s": statistics.median(two.responses_per_s for two in through),
        "direct_longest_gap_ms": max(one.longest_gap_ms for one in direct),
        "longest_gap_ms": max(two.longest_gap_ms for two in through),
    }


async def crowd(server: Throwaway, engine_url: str, streams: int, step_s: float, tokens: int) -> dict[str, float]:
    """Many paced streams, an engine step every `step_s`: stalls, first tokens, memory; directly beside it."""
    client, engine = StreamClient(server.grpc_url), StreamClient(engine_url)
    tensors, ramp_s = text_request(PROMPT, tokens), tokens * step_s / 4
    await flood(client, "scheduler", tensors, streams, ramp_s)
    before = server.resident_mib()
    through = await flood(client, "scheduler", tensors, streams, ramp_s)
    after = server.resident_mib()
    direct = await flood(engine, "tensorrt_llm", engine_request(_THREE_IDS, tokens), streams, ramp_s)
    await client.close()
    await engine.close()
    return {
        "streams": streams,
        "wanted_tokens_per_s": streams / step_s,
        "direct_tokens_per_s": direct.tokens_per_s,
        "tokens_per_s": through.tokens_per_s,
        "client_responses_per_s": through.responses_per_s,
        "direct_longest_gap_ms": direct.longest_gap_ms,
        "longest_gap_ms": through.longest_gap_ms,
        "direct_median_ttft_ms": statistics.median(one.ttft * 1e3 for one in direct.timelines),
        "median_ttft_ms": statistics.median(one.ttft * 1e3 for one in through.timelines),
        "memory_before_mib": before,
        "memory_after_mib": after,
    }


async def refill(server: Throwaway, requests: int, rounds: int) -> dict[str, float]:
    """Tokens a second of an engine with SLOTS slots that is never idle: asked directly, and at each OVER_DISPATCH.

    All requests are sent at once; asked directly the engine itself holds those that wait, so no slot is ever empty.
    Answers are short and of many lengths: a slot is freed every other step.
    """
    client = StreamClient(server.grpc_url)
    lengths = [8 + 7 * number % 24 for number in range(requests)]
    asked: dict[str, tuple[str, list[dict[str, Any]], int]] = {
        "direct": ("tensorrt_llm", [engine_request(_THREE_IDS, length) for length in lengths], 0)
    }
    for ahead in OVER_DISPATCH:
        asked[f"over_dispatch_{ahead}"] = ("scheduler", [text_request(PROMPT, length) for length in lengths], ahead)
    rates: dict[str, list[float]] = {name: [] for name in asked}
    async with AsyncClient(server.grpc_url) as control:
        for turn in range(rounds + 1):
            for name, (model, tensors, ahead) in asked.items():
                await control.set_limits(server.token, over_dispatch=ahead)
                begun = time.perf_counter()
                await asyncio.gather(*(client.stream(model, each) for each in tensors))
                if turn:
                    rates[name].append(sum(lengths) / (time.perf_counter() - begun))
    await client.close()
    figures = {"slots": SLOTS, "direct_tokens_per_s": statistics.median(rates["direct"])}
    for name in list(rates)[1:]:
        paired = [b / a for a, b in zip(rates["direct"], rates[name], strict=True)]
        figures[f"{name}_share"] = statistics.median(paired)
    return figures


def measure(parts: Sequence[str], quick: bool) -> dict[str, dict[str, float]]:
    """Those of PARTS that were asked for; each engine with a fresh server."""
    rounds, figures = 2 if quick else 5, {}
    if not {"latency", "rate"}.isdisjoint(parts):
        with throwaway_server({"SSJF_MAX_INFLIGHT": "16"}) as server:
            figures["latency"] = asyncio.run(latency(server, 5 if quick else 40))
            figures["rate"] = asyncio.run(token_rate(server, server.grpc_url, 16, 32 if quick else 128, rounds))
    if "paced" in parts:
        with _in_front_of_lean_engine(GPU_STEP_S, 16) as (server, url):
            figures["paced"] = asyncio.run(token_rate(server, url, 16, 40 if quick else 400, rounds))
    if "relay" in parts:
        with _in_front_of_lean_engine(0.0, 64) as (server, url):
            figures["relay"] = asyncio.run(relay_rate(server, url, 32, 100 if quick else 1000, rounds))
    for name, step_s in CROWD_STEPS_S.items():
        if name in parts:
            with _in_front_of_lean_engine(step_s, 256) as (server, url):
                figures[name] = asyncio.run(crowd(server, url, 256, step_s, 10 if quick else round(20 / step_s)))
    if "refill" in parts:
        paced = {"SSJF_INSTANT_STEP_S": str(GPU_STEP_S), "SSJF_INSTANT_MAX_BATCH_SIZE": str(SLOTS)}
        with throwaway_server(paced | {"SSJF_MAX_INFLIGHT": str(SLOTS)}, models=INSTANT_ENGINE) as server:
            figures["refill"] = asyncio.run(refill(server, 20 if quick else 100, rounds))
    return figures


@contextmanager
def _in_front_of_lean_engine(step_s: float, slots: int) -> Iterator[tuple[Throwaway, str]]:
    with lean_engine(step_s) as url:
        environment = {"SSJF_MAX_INFLIGHT": str(slots), "SSJF_ENGINE_URL": url}
        with throwaway_server(environment, models=INSTANT_ENGINE) as server:
            yield server, url


def show(figures: dict[str, dict[str, float]]) -> None:
    """A table on the terminal."""
    table = Table("part", "figure", "value", title="What the scheduler costs")
    for part, values in figures.items():
        for name, value in values.items():
            table.add_row(part, name, f"{value:,.3f}" if value < 10 else f"{value:,.1f}")
    Console().print(table)


def main(argv: Sequence[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench-overhead", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS), help="which of them, with commas (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: does it work, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(argv)
    parts = options.parts.split(",")
    if not set(parts) <= set(PARTS):
        parser.error(f"--parts is {options.parts!r}, expected some of {', '.join(PARTS)}")
    figures = measure(parts, options.quick)
    show(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
