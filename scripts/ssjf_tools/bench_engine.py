"""`python -m ssjf_tools.bench_engine`: tokens per second of the CPU engine, through Triton and without it.

Both run the same greedy streams of a fixed length, one after the other, on the same machine; the difference is what
Triton, the stub, the pipe to the inference process and gRPC cost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openvino_llm.batch import Batch
from openvino_llm.messages import Generation, Sampling
from openvino_llm.settings import EngineSettings, ModelFacts
from ssjf.service.engine.endpoint import EngineEndpoint
from ssjf.service.engine.inflight import InflightAdapter
from ssjf.service.messages import EngineRequest

CHECKOUT = Path(__file__).resolve().parents[2]
PROMPT_TOKENS = 40
SEED = 5


@dataclass(frozen=True, slots=True)
class Rate:
    """One measurement. `responses` is what the client received: fewer than tokens where responses were merged."""

    door: str
    streams: int
    tokens_per_s: float
    first_token_ms: float
    responses: int


def prompts(count: int) -> list[NDArray[np.int32]]:
    """Random but fixed prompts of 40 tokens; greedy decoding costs the same for any of them."""
    generator = np.random.default_rng(SEED)
    return [generator.integers(1000, 40_000, PROMPT_TOKENS).astype(np.int32) for _ in range(count)]


async def through_triton(url: str, streams: int, tokens: int) -> Rate:
    """`streams` concurrent requests to `tensorrt_llm`, as the scheduler sends them."""
    endpoint = EngineEndpoint(url, InflightAdapter("tensorrt_llm"))
    inputs = {"temperature": np.zeros((1, 1), np.float32), "end_id": np.full((1, 1), -1, np.int32)}
    began = time.perf_counter()

    async def one(prompt: NDArray[np.int32]) -> tuple[float, int, int]:
        request = EngineRequest("", prompt, tokens, True, (), 1, inputs)
        first, count, responses = 0.0, 0, 0
        async for chunk in endpoint.generate(request):
            first = first or time.perf_counter() - began
            count += len(chunk.token_ids[0])
            responses += 1
        return first, count, responses

    results = await asyncio.gather(*(one(prompt) for prompt in prompts(streams)))
    seconds = time.perf_counter() - began
    await endpoint.close()
    first, counts, responses = zip(*results, strict=True)
    if set(counts) != {tokens}:
        raise RuntimeError(f"answers have {sorted(set(counts))} tokens, expected {tokens}")
    return Rate("triton", streams, sum(counts) / seconds, 1000 * float(np.mean(first)), sum(responses))


def alone(settings: EngineSettings, levels: list[int], tokens: int) -> list[Rate]:
    """The same work on the pipeline in this process."""
    from openvino_llm.pipeline import OpenVinoPipeline  # noqa: PLC0415

    pipeline = OpenVinoPipeline(settings, ModelFacts.read(settings.model_dir))
    _drive(pipeline, settings, 2, 4)  # the first steps compile kernels
    return [_drive(pipeline, settings, streams, tokens) for streams in levels]


def _drive(pipeline: object, settings: EngineSettings, streams: int, tokens: int) -> Rate:
    batch = Batch(pipeline, settings.max_num_seqs, settings.num_kv_blocks)  # type: ignore[arg-type]
    began = time.perf_counter()
    for key, prompt in enumerate(prompts(streams)):
        batch.start(key, Generation(tuple(prompt.tolist()), tokens, Sampling(greedy=True)))
    first: dict[int, float] = {}
    count = 0
    while batch.busy:
        for delta in batch.step():
            first.setdefault(delta.key, time.perf_counter() - began)
            count += len(delta.token_ids)
    seconds = time.perf_counter() - began
    return Rate("pipeline", streams, count / seconds, 1000 * float(np.mean(list(first.values()))), count)


def main(arguments: list[str] | None = None) -> int:
    """Command line entry."""
    parser = argparse.ArgumentParser(prog="python -m ssjf_tools.bench_engine", description=__doc__)
    assets = Path(os.environ.get("SSJF_ASSETS") or CHECKOUT / ".assets")
    parser.add_argument(
        "--url", default="127.0.0.1:8001", help="gRPC address of a running server (default: %(default)s)"
    )
    parser.add_argument("--streams", default="1,4,8,16", help="concurrent streams to try (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer (default: %(default)s)")
    parser.add_argument("--assets", type=Path, default=assets, help="folder of the built assets (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--pipeline-only", action="store_true", help="print the pipeline's figures as JSON and end")
    options = parser.parse_args(arguments)
    levels = [int(part) for part in options.streams.split(",")]
    if options.pipeline_only:
        settings = EngineSettings(model_dir=options.assets / "smollm2")
        print(json.dumps([asdict(rate) for rate in alone(settings, levels, options.tokens)]))
        return 0
    rates = _pipeline_in_a_process(options) + asyncio.run(_all_through_triton(options.url, levels, options.tokens))
    print_table(rates)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(rate) for rate in rates], indent=2) + "\n", encoding="utf-8")
    return 0


async def _all_through_triton(url: str, levels: list[int], tokens: int) -> list[Rate]:
    await through_triton(url, 2, 4)
    return [await through_triton(url, streams, tokens) for streams in levels]


def _pipeline_in_a_process(options: argparse.Namespace) -> list[Rate]:
    """In a process that is gone, with its threads and 1.4 GB, before the server is measured."""
    command = [sys.executable, "-m", "ssjf_tools.bench_engine", "--pipeline-only"]
    command += ["--streams", options.streams, "--tokens", str(options.tokens), "--assets", str(options.assets)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [Rate(**entry) for entry in json.loads(done.stdout.splitlines()[-1])]


def print_table(rates: list[Rate]) -> None:
    """One line a measurement, and Triton's share of the pipeline's rate."""
    base = {rate.streams: rate.tokens_per_s for rate in rates if rate.door == "pipeline"}
    print(f"{'door':<10}{'streams':>8}{'tokens/s':>10}{'share':>8}{'first token ms':>16}{'responses':>11}")
    for rate in rates:
        share = rate.tokens_per_s / base[rate.streams]
        line = f"{rate.door:<10}{rate.streams:>8}{rate.tokens_per_s:>10.1f}{share:>8.0%}"
        print(f"{line}{rate.first_token_ms:>16.0f}{rate.responses:>11}")


if __name__ == "__main__":
    sys.exit(main())
