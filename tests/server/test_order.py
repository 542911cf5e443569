"""Sixty requests of mixed lengths at once on four slots: who goes first is the policy's word."""

from __future__ import annotations

import itertools
import queue
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient

from ssjf_client import Client
from ssjf_tools.serve.throwaway import Throwaway
from tests.server.asking import TIMEOUT_S, inputs, tensors, wait_for

REQUESTS = 60
SLOTS = 4
BLOCKER = "blocker"
PROMPTS = [
    "Answer yes or no: is water wet?",
    "What is the capital of France?",
    "List five fruits.",
    "Write a short poem about the sea.",
    "Explain how a bicycle works.",
    "Translate 'good morning' into French.",
]


@dataclass(frozen=True)
class Finished:
    """One answered request: its place in line, its predicted and true tokens, its end in seconds after the start."""

    arrived: int
    predicted: int
    tokens: int
    jct_s: float


@pytest.fixture(autouse=True)
def restore(server: Throwaway, client: Client) -> Iterator[None]:
    yield
    client.stop(BLOCKER)
    client.set_policy("ssjf-aging", server.token)


def burst(server: Throwaway, client: Client, policy: str) -> list[Finished]:
    """Sixty requests that wait behind four endless ones, then run under `policy`; in the order that they finish in."""
    client.set_policy(policy, server.token)
    events: queue.Queue[tuple[Any, Any]] = queue.Queue()
    connection = grpcclient.InferenceServerClient(server.grpc_url)
    connection.start_stream(lambda result, error: events.put((result, error)))
    try:
        blockers = [
            client.stream("Write a story.", max_tokens=1000, min_tokens=1000, request_id=BLOCKER) for _ in range(4)
        ]
        wait_for(client, server.token, lambda status: status.in_flight == SLOTS)
        for at in range(REQUESTS):
            arrays = tensors(PROMPTS[at % len(PROMPTS)], 2 + (at * 7) % 23, top_k=np.array([[1]], np.int32))
            connection.async_stream_infer("ensemble", inputs(arrays), request_id=str(at))
        wait_for(client, server.token, lambda status: status.queue_length == REQUESTS)
        for blocker in blockers:
            blocker.close()
        begun = time.monotonic()
        return [finished(events, begun) for _ in range(REQUESTS)]
    finally:
        connection.stop_stream()
        connection.close()


def finished(events: queue.Queue[tuple[Any, Any]], begun: float) -> Finished:
    result, error = events.get(timeout=TIMEOUT_S)
    assert error is None
    return Finished(
        arrived=int(result.get_response().id),
        predicted=result.as_numpy("predicted_tokens").item(),
        tokens=result.as_numpy("num_output_tokens").item(),
        jct_s=time.monotonic() - begun,
    )


def agreement(values: Sequence[float]) -> float:
    """Share of pairs that stand in ascending order, minus that in descending order; 1: sorted."""
    pairs = [(b > a) - (b < a) for a, b in itertools.combinations(values, 2)]
    return sum(pairs) / sum(map(abs, pairs))


def mean_completion(jobs: list[Finished]) -> float:
    """Mean completion time on the clock of tokens produced: the same whatever else the machine is doing."""
    return sum(itertools.accumulate(job.tokens for job in jobs)) / len(jobs)


def test_short_first_under_ssjf_and_in_order_of_arrival_under_fcfs(server: Throwaway, client: Client) -> None:
    fcfs, ssjf = burst(server, client, "fcfs"), burst(server, client, "ssjf")
    # Four run at a time, so neighbours may finish in another order than they started in.
    assert agreement([job.arrived for job in fcfs]) > 0.85
    assert agreement([job.predicted for job in ssjf]) > 0.85
    seconds = [sum(job.jct_s for job in jobs) / REQUESTS for jobs in (fcfs, ssjf)]
    tokens = [mean_completion(jobs) for jobs in (fcfs, ssjf)]
    print(f"mean completion: fcfs {seconds[0]:.2f} s, ssjf {seconds[1]:.2f} s, {seconds[1] / seconds[0] - 1:+.0%}")
    print(f"in tokens of work: fcfs {tokens[0]:.0f}, ssjf {tokens[1]:.0f}, {tokens[1] / tokens[0] - 1:+.0%}")
    assert tokens[1] < tokens[0]
