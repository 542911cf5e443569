"""Clients that come and go in crowds, and clients that do not read: nobody else notices, nothing stays."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from ssjf.service.engine.wire import WANT_FINAL_PARAMETER, build_request, is_final, read_outputs
from ssjf_client import Client
from ssjf_tools.bench.overhead import INSTANT_ENGINE
from ssjf_tools.bench.streams import text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import wait_for

pytestmark = [pytest.mark.server, pytest.mark.slow]

STORM = 500
AT_ONCE = 50
SLOTS = 8
TOKENS = 40
SEED = 11
LONG = 1000
STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
# A connection of one's own for each client, as from another machine.
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


@pytest.fixture(scope="module")
def server() -> Iterator[Throwaway]:
    """Eight slots of an engine that makes a token every 5 ms."""
    with throwaway_server({"SSJF_MAX_INFLIGHT": str(SLOTS), "SSJF_STEP_S": "0.005"}, INSTANT_ENGINE) as running:
        yield running


@contextmanager
def bystander(server: Throwaway) -> Iterator[list[int]]:
    """Keeps asking on a thread of its own while the block runs; holds the number of tokens of every answer."""
    counts: list[int] = []
    over = threading.Event()

    def run() -> None:
        with Client(server.grpc_url, timeout_s=60) as client:
            while not over.is_set():
                counts.append(client.generate("Say hello.", max_tokens=TOKENS).output_tokens or 0)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()


def message(door: str, wanted: int) -> Any:
    request = build_request(door, "", text_request("Tell a story.", wanted))
    request.parameters[WANT_FINAL_PARAMETER].bool_param = True
    return request


def stream_of(channel: Any) -> Any:
    return channel.stream_stream(
        STREAM_METHOD,
        request_serializer=service_pb2.ModelInferRequest.SerializeToString,
        response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
    )


async def drop(url: str, number: int, chance: random.Random) -> str:
    """One client that connects, sends and goes; returns when it went."""
    way = ("before it sent", "right after it sent", "before the first response", "half-way", "in the middle of a frame")
    went = way[number % len(way)]
    if went == "in the middle of a frame":
        await asyncio.to_thread(speak_half, url, chance.randbytes(64))
        return went
    channel = grpc.aio.insecure_channel(url, options=OWN_CONNECTION)
    call = stream_of(channel)()
    if went != "before it sent":
        await call.write(message("scheduler" if number % 2 else "ensemble", TOKENS))
    if went == "before the first response":
        await asyncio.sleep(chance.random() * 0.1)
    if went == "half-way":
        for _ in range(chance.randrange(1, TOKENS // 2)):
            response = await call.read()
            if is_final(response.infer_response):  # merged tokens: a busy server answers in fewer pieces
                break
    await channel.close(grace=None)
    return went


def speak_half(url: str, noise: bytes) -> None:
    """HTTP/2's greeting and noise after it, and gone."""
    host, port = url.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + noise)


async def storm(url: str, clients: int, seed: int) -> Counter[str]:
    """Clients come and go, AT_ONCE at a time; how many went when."""
    chance, room = random.Random(seed), asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        async with room:
            return await asyncio.wait_for(drop(url, number, chance), 60)

    return Counter(await asyncio.gather(*(one(number) for number in range(clients))))


def assert_empty(server: Throwaway) -> None:
    with Client(server.grpc_url) as client:
        wait_for(
            client,
            server.token,
            lambda status: status.live_requests == status.in_flight == status.queue_length == 0,
            timeout_s=60,  # what came through the ensemble is finished for nobody: Triton does not tell its steps
        )


def test_a_storm_of_clients_that_drop_leaves_nothing(server: Throwaway) -> None:
    asyncio.run(storm(server.grpc_url, 100, SEED))  # warm-up: pools, arenas and caches reach their size
    assert_empty(server)
    before = server.resident_mib()
    with bystander(server) as counts:
        went = asyncio.run(storm(server.grpc_url, STORM, SEED + 1))
    assert_empty(server)
    after = server.resident_mib()
    with Client(server.grpc_url) as client:
        ended = client.status(server.token).ended
    print(f"{dict(went)}; bystander's answers {len(counts)}; memory {before:.0f} to {after:.0f} MiB; {ended}")
    assert sum(went.values()) == STORM
    assert counts
    assert set(counts) == {TOKENS}
    assert ended["cancelled"] > 0
    assert after - before < 0.1 * before


def test_clients_that_do_not_read_hold_nobody_up(server: Throwaway) -> None:
    """Half of the slots answer clients that read nothing; the answers wait for them in the server, at most whole."""
    before = server.resident_mib()
    channels = [grpc.insecure_channel(server.grpc_url, options=OWN_CONNECTION) for _ in range(SLOTS // 2)]
    calls = [stream_of(channel)(iter([message("scheduler", LONG)])) for channel in channels]
    firsts = [next(call) for call in calls]
    with Client(server.grpc_url) as client:
        others = [client.generate("Say hello.", max_tokens=TOKENS).output_tokens for _ in range(20)]
        # The engine is done with the slow ones' answers, too, before any of them has read its second piece.
        wait_for(client, server.token, lambda status: status.live_requests == 0, timeout_s=60)
    during = server.resident_mib()
    print(f"memory {before:.0f} to {during:.0f} MiB with {len(calls)} whole answers unread")
    assert others == [TOKENS] * 20
    assert during - before < 0.1 * before
    for first, call in zip(firsts, calls, strict=True):
        responses = [first, *call]
        assert [response.error_message for response in responses if response.error_message] == []
        assert sum(map(tokens_in, responses)) == LONG
        assert sum(is_final(response.infer_response) for response in responses) == 1
    for channel in channels:
        channel.close()
    assert_empty(server)


def tokens_in(response: Any) -> int:
    outputs = read_outputs(response.infer_response)
    return int(outputs["num_output_tokens"].item()) if outputs else 0
