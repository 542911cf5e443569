"""An engine that goes silent, fails or talks nonsense, a scheduler that is killed, a server told to stop: all end."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssjf_client import Client
from ssjf_tools.bench.streams import StreamClient, text_request
from ssjf_tools.serve.throwaway import Throwaway, throwaway_server
from tests.server.asking import Answer, ask, tensors, wait_for
from tests.server.crowd import End, count_kinds, end_of
from tests.server.scripted_llm.lengths import (
    END_AFTER_3,
    END_AT_ONCE,
    ERROR_AFTER_3,
    ERROR_AT_ONCE,
    MORE_THAN_WANTED,
    NO_TENSORS,
    SILENT_AFTER_3,
    SILENT_AT_ONCE,
    STRANGE_IDS,
)
from tests.server.test_faults import stub

pytestmark = [pytest.mark.server, pytest.mark.slow]

SCRIPTED_ENGINE = {"tensorrt_llm": Path(__file__).parent / "scripted_llm"}
STALL_S = 1.5
SLOTS = 4
SETTINGS = {"SSJF_MAX_INFLIGHT": str(SLOTS), "SSJF_ENGINE_STALL_S": str(STALL_S), "SSJF_ENGINE_WAIT_S": "15"}
STREAM = {"stream": np.array([[True]])}
CLIENT_TIMEOUT_S = 20.0
END_WITHIN_S = 40.0  # Triton gives running requests 30 s when it is told to stop


@pytest.fixture(scope="module")
def faulty() -> Iterator[Throwaway]:
    """An engine whose behaviour the wanted length chooses."""
    with throwaway_server(SETTINGS, SCRIPTED_ENGINE) as running:
        yield running


@pytest.fixture
def mortal() -> Iterator[Throwaway]:
    """A server of one's own, to kill."""
    with throwaway_server(SETTINGS, SCRIPTED_ENGINE) as running:
        yield running


def streamed(server: Throwaway, wanted: int) -> Answer:
    return ask(server.grpc_url, "scheduler", tensors("hello", wanted, **STREAM))


def whole(server: Throwaway, wanted: int) -> Answer:
    return ask(server.grpc_url, "scheduler", tensors("hello", wanted))


def tokens_of(answer: Answer) -> int:
    return sum(int(piece["num_output_tokens"].item()) for piece in answer.outputs)


def assert_normal_service(server: Throwaway) -> None:
    with Client(server.grpc_url) as client:
        wait_for(client, server.token, lambda status: status.live_requests == status.in_flight == 0)
        # The engine is on trial first; then all slots answer.
        assert client.generate("hello", max_tokens=5).output_tokens == 5
        ends = asyncio.run(crowd(server, 2 * SLOTS, 5))
        assert [(end.kind, end.tokens) for end in ends] == [("answered", 5)] * 2 * SLOTS


async def crowd(server: Throwaway, requests: int, wanted: int, timeout_s: float = CLIENT_TIMEOUT_S) -> list[End]:
    client = StreamClient(server.grpc_url)
    doors = ("scheduler", "ensemble")
    request = text_request("hello", wanted)
    ends = await asyncio.gather(*(end_of(client, doors[at % 2], request, timeout_s) for at in range(requests)))
    await client.close()
    return list(ends)


def test_an_engine_that_goes_silent_ends_in_an_error_and_frees_the_slot(faulty: Throwaway) -> None:
    bystander: list[Answer] = []
    other = threading.Thread(target=lambda: bystander.append(streamed(faulty, 700)))
    other.start()
    begun = time.monotonic()
    answer = streamed(faulty, SILENT_AFTER_3)
    print(f"silent after 3 tokens: ended after {time.monotonic() - begun:.1f} s, limit {STALL_S} s")
    assert (answer.error, tokens_of(answer)) == (f"the engine sent nothing for {STALL_S:g} s", 3)
    other.join()
    assert (bystander[0].error, tokens_of(bystander[0])) == (None, 700)
    assert_normal_service(faulty)


def test_silence_before_the_first_token_is_tried_once_more(faulty: Throwaway) -> None:
    with Client(faulty.grpc_url) as client:
        before = client.status(faulty.token).extra["requeued"]
        assert streamed(faulty, SILENT_AT_ONCE).error == f"the engine sent nothing for {STALL_S:g} s"
        assert client.status(faulty.token).extra["requeued"] == before + 1
    assert_normal_service(faulty)


def test_all_slots_silent_at_once_all_end_and_all_come_back(faulty: Throwaway) -> None:
    ends = asyncio.run(crowd(faulty, 3 * SLOTS, SILENT_AFTER_3, timeout_s=60))
    print(f"{dict(count_kinds(ends))}, the last after {max(end.seconds for end in ends):.1f} s")
    assert {end.kind for end in ends} == {"error"}
    assert_normal_service(faulty)


@pytest.mark.parametrize(("wanted", "tokens"), [(ERROR_AT_ONCE, 0), (ERROR_AFTER_3, 3)])
def test_an_error_of_the_engine_is_that_requests_alone(faulty: Throwaway, wanted: int, tokens: int) -> None:
    answer = streamed(faulty, wanted)
    assert answer.error is not None
    assert "the engine's own words" in answer.error
    assert tokens_of(answer) <= tokens  # an error overtakes pieces that have not left yet
    assert whole(faulty, 5).error is None
    with Client(faulty.grpc_url) as client:
        (engine,) = client.status(faulty.token).extra["engines"]
        assert engine["state"] == "up"


@pytest.mark.parametrize(("wanted", "tokens"), [(END_AT_ONCE, 0), (END_AFTER_3, 3), (NO_TENSORS, 3)])
def test_an_answer_that_ends_early_is_an_answer(faulty: Throwaway, wanted: int, tokens: int) -> None:
    for answer in (streamed(faulty, wanted), whole(faulty, wanted)):
        assert (answer.error, answer.finals, tokens_of(answer)) == (None, 1, tokens)


def test_token_ids_from_nowhere_end_that_request_by_name(faulty: Throwaway) -> None:
    for answer in (streamed(faulty, STRANGE_IDS), whole(faulty, STRANGE_IDS)):
        assert answer.error is not None
        assert "the engine sent token id -1, allowed: 0 to " in answer.error
    assert_normal_service(faulty)


def test_more_than_was_asked_for_is_cut_off(faulty: Throwaway) -> None:
    for answer in (streamed(faulty, MORE_THAN_WANTED), whole(faulty, MORE_THAN_WANTED)):
        assert (answer.error, answer.finals, tokens_of(answer)) == (None, 1, MORE_THAN_WANTED)
    assert_normal_service(faulty)


def test_clients_of_a_killed_scheduler_end_within_their_timeout(mortal: Throwaway) -> None:
    async def scenario() -> tuple[list[End], list[End]]:
        running = asyncio.ensure_future(crowd(mortal, 3 * SLOTS, 800, timeout_s=8))
        await asyncio.sleep(1.5)
        os.kill(stub(mortal, "scheduler"), signal.SIGKILL)
        await asyncio.sleep(1.5)
        return await crowd(mortal, 4, 5, timeout_s=8), await running

    later, held = asyncio.run(scenario())
    print(f"held by it: {dict(count_kinds(held))}; sent later: {dict(count_kinds(later))}, {later[0].text}")
    assert "answered" not in count_kinds(held)
    assert {end.kind for end in later} == {"error"}


def test_every_client_ends_when_the_server_is_told_to_stop(mortal: Throwaway) -> None:
    async def scenario() -> list[End]:
        running = asyncio.ensure_future(crowd(mortal, 3 * SLOTS, 500, timeout_s=END_WITHIN_S))
        await asyncio.sleep(1.5)
        os.kill(mortal.server.pid, signal.SIGTERM)
        return await running

    begun = time.monotonic()
    ends = asyncio.run(scenario())
    print(f"{dict(count_kinds(ends))} after {time.monotonic() - begun:.1f} s: {sorted({end.text for end in ends})}")
    assert "timeout" not in count_kinds(ends)
