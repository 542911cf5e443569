"""Thousands of malformed, extreme and random requests: each ends once, and nobody else notices."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio
import pytest
from tritonclient.grpc import service_pb2

from ssjf.service.engine.wire import WANT_FINAL_PARAMETER, is_final
from ssjf.tensors import CLIENT_OPTIONAL_INPUTS, MAX_TOKENS, SCHEDULER_STEP_INPUTS, TEXT_INPUT, TensorSpec
from ssjf_client import Client
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import wait_for
from tests.server.test_storms import TOKENS, bystander, stream_of

pytestmark = [pytest.mark.server, pytest.mark.slow]

# 10,000 for the long run; after some 24,000 Triton 2.51 itself once died of a double free (docs/results.md).
REQUESTS = int(os.environ.get("SSJF_TEST_ADVERSARIAL_REQUESTS", "3200")) // 16 * 16
OUTSTANDING = 32  # of one connection
SEED = 23
ALL_END_WITHIN_S = 150.0
SCRIPTED_ENGINE = {"tensorrt_llm": Path(__file__).parent / "scripted_llm"}
# One door a connection, unknown models on their own: Triton 2.51 itself aborts (gRPC's `!byte_buffer->Valid()`) when
# requests to a decoupled model and to another, or to none, are under way on one stream, whatever these models are.
DOORS = ("scheduler", "ensemble", "unary", "scheduler", "ensemble", "unary", "scheduler", "nobody")
WIRE_TYPES = {"STRING": "BYTES"}
FORMATS = {"BOOL": "?", "INT32": "i", "UINT64": "Q", "FP32": "f"}
EXTREMES: dict[str, tuple[Any, ...]] = {
    "BOOL": (True, False),
    "INT32": (0, 1, -1, 2, 7, 255, 1024, 2**31 - 1, -(2**31)),
    "UINT64": (0, 1, 2**63, 2**64 - 1),
    "FP32": (0.0, 1.0, -0.0, -1.0, 0.5, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan")),
}
WORDS = (
    b"", b" ", b"hello", b"\xff\xfe", b"\x00", "\u202e\u0000é".encode(), b"word " * 400, b"x" * 3000, b"<|im_end|>",
)  # fmt: skip
WANTED = (1, 2, 5, 20)
IDS = ("", "a", "b", "c", "é", "x" * 500)
PARAMETERS = (
    "priority_class", "tenant", "deadline_ms", "timeout", "expected_tokens", "control", "control_token", "limits",
    "policy", "traceparent", "coded_errors", "priority", "binary_data_output", "unheard of", "", "sequence_id",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    0, 1, -1, 9, 10, 2**63 - 1, -(2**63), 0.5, float("nan"), float("inf"), -1e308, True, False, "", "x", "1",
    "-1", "1e400", "nan", "status", "drain", "set_policy", "set_limits", "{}",
    '{"max_inflight": 0}', "\x00", "é\u202e", '"}', "y" * 5000,
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Throwaway]:
    """An engine that takes every input of the contract, so that refusals are the scheduler's own."""
    with throwaway_server({"SSJF_MAX_INFLIGHT": "8"}, SCRIPTED_ENGINE) as running:
        yield running


def packed(spec: TensorSpec, values: list[Any]) -> bytes:
    if spec.dtype == "STRING":
        return b"".join(struct.pack("<I", len(value)) + value for value in values)
    return struct.pack(f"<{len(values)}{FORMATS[spec.dtype]}", *values)


def add(request: Any, spec: TensorSpec, shape: list[int], values: list[Any]) -> None:
    request.inputs.add(name=spec.name, datatype=WIRE_TYPES.get(spec.dtype, spec.dtype), shape=shape)
    request.raw_input_contents.append(packed(spec, values))


def draw(chance: Random, spec: TensorSpec) -> Any:
    """A value of an input's type: for lengths mostly one that can be served, else an extreme."""
    if spec is MAX_TOKENS and chance.random() < 0.7:
        return chance.choice(WANTED)
    if spec.dtype == "STRING":
        return chance.choice(WORDS) if chance.random() < 0.5 else b"Request %d" % chance.randrange(10**6)
    if spec.dtype == "INT32" and chance.random() < 0.3:
        return chance.randrange(-(2**31), 2**31)
    return chance.choice(EXTREMES[spec.dtype])


def contract_request(chance: Random, door: str) -> Any:
    """Well-formed as the contract has it, with values from one end of their types to the other."""
    request = service_pb2.ModelInferRequest(model_name=door, id=chance.choice(IDS))
    rows = chance.choice((1, 1, 1, 2, 5))
    steps = SCHEDULER_STEP_INPUTS if door == "scheduler" and chance.random() < 0.2 else ()
    optional = chance.sample(CLIENT_OPTIONAL_INPUTS, chance.choice((0, 0, 1, 2, 5)))
    for spec in (TEXT_INPUT, MAX_TOKENS, *optional, *steps):
        width = chance.choice((1, 3, 40)) if spec.dims == (-1,) else 1
        add(request, spec, [rows, width], [draw(chance, spec) for _ in range(rows * width)])
    return request


def missing_inputs(chance: Random, door: str) -> Any:
    request = contract_request(chance, door)
    for _ in range(chance.randrange(1, len(request.inputs) + 1)):
        at = chance.randrange(len(request.inputs))
        del request.inputs[at]
        del request.raw_input_contents[at]
    return request


def wrong_shape(chance: Random, door: str) -> Any:
    request = contract_request(chance, door)
    shape = [chance.choice((-1, 0, 1, 2, 7, 2**31, 2**62)) for _ in range(chance.randrange(4))]
    entry = chance.choice(request.inputs)
    del entry.shape[:]
    entry.shape.extend(shape)
    return request


def wrong_type(chance: Random, door: str) -> Any:
    request = contract_request(chance, door)
    chance.choice(request.inputs).datatype = chance.choice(("INT32", "FP32", "BYTES", "BOOL", "FP16", "", "NONSENSE"))
    return request


def wrong_name(chance: Random, door: str) -> Any:
    request = contract_request(chance, door)
    chance.choice(request.inputs).name = chance.choice(("", "text_input", "lora_weights", "é" * 100))
    return request


def wrong_bytes(chance: Random, door: str) -> Any:
    request = contract_request(chance, door)
    at = chance.randrange(len(request.raw_input_contents))
    request.raw_input_contents[at] = chance.randbytes(chance.choice((0, 1, 3, 4, 8, 64, 1000)))
    if chance.random() < 0.1:
        request.raw_input_contents.append(b"more")
    return request


def strange_parameters(chance: Random, door: str) -> Any:
    request = contract_request(chance, door)
    for _ in range(chance.choice((1, 1, 2, 4))):
        target, value = request.parameters[chance.choice(PARAMETERS)], chance.choice(VALUES)
        if isinstance(value, bool):
            target.bool_param = value
        elif isinstance(value, int):
            target.int64_param = value
        elif isinstance(value, float):
            target.double_param = value
        else:
            target.string_param = value
    return request


def strange_outputs(chance: Random, door: str) -> Any:
    request = contract_request(chance, door)
    for _ in range(chance.randrange(1, 4)):
        request.outputs.add(name=chance.choice(("text_output", "num_output_tokens", "nothing", "", "output_ids")))
    return request


def stop_of_somebody(chance: Random, door: str) -> Any:
    request = service_pb2.ModelInferRequest(model_name=door, id=chance.choice(IDS))
    add(request, TEXT_INPUT, [1, 1], [b"stop"])
    add(request, MAX_TOKENS, [1, 1], [1])
    request.inputs.add(name="stop", datatype="BOOL", shape=[1, 1])
    request.raw_input_contents.append(b"\x01")
    return request


def huge(chance: Random, door: str) -> Any:
    """Long prompts, long lists of words, many rows, token ids from nowhere."""
    request = service_pb2.ModelInferRequest(model_name=door, id=chance.choice(IDS))
    rows = chance.choice((1, 64, 65))
    words = TensorSpec("stop_words", "STRING", (-1,))
    add(request, TEXT_INPUT, [rows, 1], [b"many words " * chance.choice((1, 300, 30_000 // rows))] * rows)
    add(request, MAX_TOKENS, [rows, 1], [2] * rows)
    add(request, words, [rows, 200], [chance.choice((b"", b"w", b"w" * 300))] * 200 * rows)
    return request


KINDS: tuple[Callable[[Random, str], Any], ...] = (
    contract_request, contract_request, missing_inputs, wrong_shape, wrong_type, wrong_name, wrong_bytes,
    strange_parameters, strange_parameters, strange_outputs, stop_of_somebody,
)  # fmt: skip


def generate(chance: Random, door: str) -> Any:
    kind = huge if chance.random() < 0.005 else chance.choice(KINDS)
    request = kind(chance, door)
    if door == "nobody":
        request.model_name = chance.choice(("", door, "../scheduler", "x" * 5000))
    request.parameters[WANT_FINAL_PARAMETER].bool_param = True
    return request


class Connection:
    """One gRPC stream that sends `requests` and counts ends by request id, at most OUTSTANDING under way.

    An end is an error, or the response marked final. Ids repeat, so what must agree is how often each one ends.
    """

    def __init__(self, url: str, requests: list[Any]):
        self.sent: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self._url = url
        self._requests = requests
        self._room = asyncio.Semaphore(OUTSTANDING)

    async def run(self) -> None:
        """To the end of the last request; the server closes the stream after it."""
        async with grpc.aio.insecure_channel(self._url, options=(("grpc.use_local_subchannel_pool", 1),)) as channel:
            async for response in stream_of(channel)(self._messages()):
                if response.error_message or is_final(response.infer_response):
                    self.ended[response.infer_response.id] += 1
                    self.errors[response.error_message] += 1
                    self._room.release()

    async def _messages(self) -> AsyncIterator[Any]:
        for request in self._requests:
            await self._room.acquire()
            self.sent[request.id] += 1
            yield request


async def attack(server: Throwaway, count: int, seed: int) -> list[Connection]:
    chance = Random(seed)
    shares = [[generate(chance, door) for _ in range(count // len(DOORS))] for door in DOORS]
    connections = [Connection(server.grpc_url, share) for share in shares]
    await asyncio.wait_for(asyncio.gather(*(each.run() for each in connections)), ALL_END_WITHIN_S)
    return connections


@pytest.mark.timeout(400)
def test_each_ends_once_and_the_server_stays_well(server: Throwaway) -> None:
    begun = time.monotonic()
    with bystander(server) as counts:
        connections = asyncio.run(attack(server, REQUESTS // 2, SEED))
        before = server.resident_mib()  # pools, arenas and caches have reached their size
        connections += asyncio.run(attack(server, REQUESTS // 2, SEED + 1))
    seconds = time.monotonic() - begun
    with Client(server.grpc_url) as client:
        state = wait_for(
            client, server.token, lambda status: status.live_requests == status.in_flight == status.queue_length == 0
        )
    after = server.resident_mib()
    errors = sum((each.errors for each in connections), Counter[str]())
    answered = errors.pop("", 0)
    print(f"{answered} answers and {errors.total()} errors of {len(errors)} kinds in {seconds:.0f} s; {state.ended}")
    print(f"bystander's answers {len(counts)}; memory {before:.0f} to {after:.0f} MiB")
    assert [each.ended for each in connections] == [each.sent for each in connections]
    assert answered + errors.total() == REQUESTS
    assert answered > REQUESTS / 10
    ours = ("its log has the reason", "door failed", "could not read")
    faults = [error for error in errors if any(words in error for words in ours)]
    assert faults == []
    assert state.ready
    assert (state.policy, state.limits["max_inflight"]) == ("ssjf-aging", 8)
    assert counts
    assert set(counts) == {TOKENS}
    assert after - before < 0.1 * before
