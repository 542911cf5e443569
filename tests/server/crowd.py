"""Many clients at once: raw gRPC streams on one event loop, each request with exactly one `End`."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc.aio

from ssjf_tools.bench.streams import StreamClient, Timeline


@dataclass(frozen=True, slots=True)
class End:
    """How one request ended: `answered`, `error` (the server's text), `broken` (connection), `timeout` (the client's).

    `tokens` and `queue_s` of the answer; `seconds` until the end, as the client saw it.
    """

    kind: str
    seconds: float
    text: str = ""
    tokens: int = 0
    queue_s: float = 0.0


async def end_of(
    client: StreamClient, door: str, tensors: Mapping[str, Any], timeout_s: float, **parameters: Any
) -> End:
    """Send one streamed request and wait for its end, whatever it is, for at most `timeout_s`."""
    begun = time.perf_counter()
    kind, text = "answered", ""
    timeline = Timeline(begun)
    try:
        timeline = await asyncio.wait_for(client.stream(door, tensors, parameters), timeout_s)
    except RuntimeError as error:
        kind, text = "error", str(error)
    except grpc.aio.AioRpcError as error:
        kind, text = "broken", f"{error.code().name}: {error.details()}"
    except asyncio.TimeoutError:
        kind = "timeout"
    outputs = [piece for piece in timeline.outputs if "queue_time_us" in piece]
    queue_s = outputs[0]["queue_time_us"].item() / 1e6 if outputs else 0.0
    return End(kind, time.perf_counter() - begun, text, timeline.tokens, queue_s)


def count_kinds(ends: Iterable[End]) -> Counter[str]:
    """Ends by kind."""
    return Counter(end.kind for end in ends)
