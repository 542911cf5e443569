"""`scripts/bench-overhead`: what the scheduler costs next to asking the engine directly.

    latency   time to first token through `scheduler` minus that of the engine asked directly, the proxy's part apart
    rate      tokens a second at 16 streams, through the scheduler as a share of the direct rate
    relay     responses a second that the scheduler takes in from an engine that costs nothing

Arms alternate within one run, since machines drift. Prints a table and, with --json, writes the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ssjf_tools.bench.streams import StreamClient, engine_request, text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server

INSTANT_ENGINE = {"tensorrt_llm": Path(__file__).parent / "instant_llm"}
PROMPT = "Explain in a few sentences why the sky is blue."
CROWD_STEP_S = 0.025  # 40 tokens a second for each stream
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


async def token_rate(server: Throwaway, streams: int, tokens: int, rounds: int) -> dict[str, float]:
    """Tokens a second with `streams` at once, both ways in turn; the ratio is of the medians of `rounds`."""
    client = StreamClient(server.grpc_url)
    prepared = await client.infer("preprocessing", {"text_input": np.array([[PROMPT.encode()]], dtype=np.object_)})
    fixed = {"min_tokens": np.array([[tokens]], dtype=np.int32)}
    arms: dict[str, tuple[str, dict[str, Any]]] = {
        "direct": ("tensorrt_llm", engine_request(prepared["input_ids"], tokens, **fixed)),
        "scheduler": ("scheduler", text_request(PROMPT, tokens, **fixed)),
    }
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name, (model, tensors) in arms.items():
            begun = time.perf_counter()
            timelines = await asyncio.gather(*(client.stream(model, tensors) for _ in range(streams)))
            if turn:
                rates[name].append(sum(one.tokens for one in timelines) / (time.perf_counter() - begun))
    await client.close()
    direct, through = statistics.median(rates["direct"]), statistics.median(rates["scheduler"])
    paired = [b / a for a, b in zip(rates["direct"], rates["scheduler"], strict=True)]
    return {
        "streams": streams,
        "direct_tokens_per_s": direct,
        "scheduler_tokens_per_s": through,
        "share": statistics.median(paired),
    }


async def relay_rate(server: Throwaway, streams: int, tokens: int, rounds: int) -> dict[str, float]:
    """Engine responses taken in a second (one token each), and client responses after merging."""
    client = StreamClient(server.grpc_url)
    tensors = text_request(PROMPT, tokens)
    taken, sent, gaps = [], [], []
    for turn in range(rounds + 1):
        begun = time.perf_counter()
        timelines = await asyncio.gather(*(client.stream("scheduler", tensors) for _ in range(streams)))
        seconds = time.perf_counter() - begun
        if turn:
            taken.append(sum(one.tokens for one in timelines) / seconds)
            sent.append(sum(one.responses for one in timelines) / seconds)
            gaps.append(max(one.longest_gap for one in timelines) * 1e3)
    await client.close()
    return {
        "streams": streams,
        "engine_responses_per_s": statistics.median(taken),
        "client_responses_per_s": statistics.median(sent),
        "longest_gap_ms": max(gaps),
    }


async def crowd(server: Throwaway, streams: int, tokens: int) -> dict[str, float]:
    """Many paced streams at once (instant engine, `CROWD_STEP_S` a token): stalls, first tokens, memory."""
    client = StreamClient(server.grpc_url)
    tensors = text_request(PROMPT, tokens)
    await asyncio.gather(*(client.stream("scheduler", tensors) for _ in range(streams)))
    before, begun = server.resident_mib(), time.perf_counter()
    timelines = await asyncio.gather(*(client.stream("scheduler", tensors) for _ in range(streams)))
    seconds = time.perf_counter() - begun
    await client.close()
    gaps = sorted(one.longest_gap * 1e3 for one in timelines)
    firsts = sorted(one.ttft * 1e3 for one in timelines)
    return {
        "streams": streams,
        "wanted_tokens_per_s": streams / CROWD_STEP_S,
        "tokens_per_s": sum(one.tokens for one in timelines) / seconds,
        "client_responses_per_s": sum(one.responses for one in timelines) / seconds,
        "median_longest_gap_ms": statistics.median(gaps),
        "longest_gap_ms": gaps[-1],
        "median_ttft_ms": statistics.median(firsts),
        "longest_ttft_ms": firsts[-1],
        "memory_before_mib": before,
        "memory_after_mib": server.resident_mib(),
    }


def measure(quick: bool) -> dict[str, dict[str, float]]:
    """All four, the last three on fresh servers."""
    rounds = 2 if quick else 5
    with throwaway_server({"SSJF_MAX_INFLIGHT": "16"}) as server:
        figures = {"latency": asyncio.run(latency(server, 5 if quick else 40))}
        figures["rate"] = asyncio.run(token_rate(server, 16, 32 if quick else 128, rounds))
    with throwaway_server({"SSJF_MAX_INFLIGHT": "64"}, models=INSTANT_ENGINE) as server:
        figures["relay"] = asyncio.run(relay_rate(server, 32, 100 if quick else 800, rounds))
    paced = {"SSJF_MAX_INFLIGHT": "256", "SSJF_INSTANT_STEP_S": str(CROWD_STEP_S)}
    with throwaway_server(paced, models=INSTANT_ENGINE) as server:
        figures["crowd"] = asyncio.run(crowd(server, 256, 40 if quick else 800))
    return figures


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
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds: does it work, not how fast")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args(argv)
    figures = measure(options.quick)
    show(figures)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
