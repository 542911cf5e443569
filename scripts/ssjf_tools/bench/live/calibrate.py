"""Prefill and decode times of a live server, as the service model of the simulator."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from ssjf_client import AsyncClient
from ssjf_tools.bench.live.target import Target
from ssjf_tools.bench.streams import StreamClient, Timeline, engine_request, text_request
from ssjf_tools.simulate.service import ServiceModel

PROMPT_WORDS = (8, 48, 96, 192, 384)
_DECODE_TOKENS = 96
_GREEDY = np.array([[1]], dtype=np.int32)
_ENDLESS = np.array([[-1]], dtype=np.int32)  # no end id: every answer has exactly max_tokens tokens


async def calibrate(
    target: Target,
    rounds: int,
    progress: Callable[[str], None],
    prompt_words: Sequence[int] = PROMPT_WORDS,
    chunk_tokens: int | None = None,
) -> ServiceModel:
    """Measure on a server that is otherwise idle. `rounds`: repeats of each measurement, of which the median counts.

    Prefill is timed on the engine asked directly: what tokenizer and proxy add before does not hold a slot. Decode
    steps are timed through the scheduler, since relaying takes its share of the machine. `chunk_tokens` is passed on
    (engine.chosen_chunk finds it).
    """
    client = StreamClient(target.url)
    async with AsyncClient(target.url) as control:
        await control.set_policy("fcfs", target.token)
    try:
        tokens, seconds = [], []
        for words in prompt_words:
            progress(f"prefill, {words} words")
            length, taken = await _prefill(client, words, rounds)
            tokens.append(length)
            seconds.append(taken)
        steps = []
        for size in batch_sizes(target.max_inflight):
            progress(f"decode, {size} at once")
            steps.append((size, await _step(client, size, rounds)))
    finally:
        await client.close()
    base_s, prefill_s = fitted_line(tokens, seconds)
    return ServiceModel(base_s, prefill_s, tuple(steps), chunk_tokens)


def batch_sizes(slots: int) -> list[int]:
    """1, 2, 3, 4, then doubling, and the slots themselves."""
    sizes = {size for size in (1, 2, 3, 4) if size <= slots}
    while max(sizes) * 2 < slots:
        sizes.add(max(sizes) * 2)
    return sorted(sizes | {slots})


def fitted_line(x: list[int], y: list[float]) -> tuple[float, float]:
    """Intercept and slope of the least-squares line, neither below zero."""
    slope, intercept = np.polyfit(x, y, 1)
    return max(0.0, float(intercept)), max(0.0, float(slope))


def write_service(path: Path, model: ServiceModel) -> None:
    """What `scripts/simulate --service` reads."""
    content = asdict(model) | {"steps": {str(size): seconds for size, seconds in model.steps}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


async def _prefill(client: StreamClient, words: int, rounds: int) -> tuple[int, float]:
    """Tokens of a prompt of so many words, and the median time to its first token; the first round warms up."""
    text = " ".join(["time", "flies", "like", "an", "arrow", "and", "fruit", "too"] * (words // 8))
    ids = await _tokenized(client, text)
    one = engine_request(ids, 1, runtime_top_k=_GREEDY, end_id=_ENDLESS)
    times = [(await client.stream("tensorrt_llm", one)).jct for _ in range(rounds + 1)]
    return ids.shape[1], median(times[1:])


async def _tokenized(client: StreamClient, text: str) -> NDArray[np.int32]:
    outputs = await client.infer("preprocessing", {"text_input": np.array([[text.encode()]], dtype=np.object_)})
    ids: NDArray[np.int32] = outputs["input_ids"]
    return ids


async def _step(client: StreamClient, size: int, rounds: int) -> float:
    """Seconds between tokens with `size` streams at once, a median over the rounds.

    Of each round the shortest counts: that of the stream whose prompt came last, which no other prompt held up.
    """
    one = text_request("Count up.", _DECODE_TOKENS, top_k=_GREEDY, end_id=_ENDLESS)
    gaps: list[float] = []
    for _ in range(rounds):
        streams = await asyncio.gather(*(client.stream("scheduler", one) for _ in range(size)))
        gaps.append(min(_mean_gap(stream) for stream in streams))
    return median(gaps)


def _mean_gap(stream: Timeline) -> float:
    """The first response may carry several tokens; each later one comes a step after the one before."""
    first = int(stream.outputs[0]["num_output_tokens"].reshape(-1)[0])
    return (stream.last - stream.first) / max(1, stream.tokens - first)
