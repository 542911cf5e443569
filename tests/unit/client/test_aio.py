from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from ssjf_client import (
    AsyncClient,
    Cancelled,
    ClientError,
    ConnectionLost,
    DeadlineExceeded,
    InvalidRequest,
    ServerError,
    ServerUnavailable,
)
from tests.unit.client.fake_triton import (
    FakeTriton,
    Received,
    fail,
    numbers,
    replay,
    response,
    tell,
    tell_json,
    tell_then_hang,
)

LEAVE_S = 5.0


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 30))


async def left(request: Received) -> bool:
    """Whether the server saw the client leave; waits without stopping the event loop."""
    return await asyncio.to_thread(request.cancelled.wait, LEAVE_S)


def test_generate_returns_the_answer_and_its_numbers(triton: FakeTriton) -> None:
    async def scenario() -> None:
        async with AsyncClient(triton.url, timeout_s=20) as client:
            answer = await client.generate("hi", max_tokens=3, request_id="mine")
        assert answer.text == "Hello world!"
        assert (answer.request_id, answer.predicted_tokens, answer.queue_time_s) == ("mine", 42, 1.5)
        assert (answer.output_tokens, answer.finish_reason, answer.complete) == (3, "length", True)

    run(scenario())


def test_stream_gives_the_pieces(triton: FakeTriton) -> None:
    triton.script = tell("Grüße", " 世界", " 🌍")

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            stream = client.stream("hi")
            assert [chunk.text async for chunk in stream] == ["Grüße", " 世界", " 🌍"]
            assert stream.result.complete
            with pytest.raises(StopAsyncIteration):
                await stream.__anext__()

    run(scenario())
    assert triton.wait_for(1).tensor("stream")[0, 0]
    assert not triton.wait_for(1).cancelled.is_set()


def test_breaking_out_of_the_loop_cancels_on_the_server(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a", "b")

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            stream = client.stream("hi")
            async for chunk in stream:
                if chunk.text == "b":
                    break
            assert await left(triton.wait_for(1))
            assert stream.result.text == "ab"

    run(scenario())


def test_an_exception_in_the_loop_cancels_on_the_server(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a")

    async def fall_over(client: AsyncClient) -> None:
        async for _ in client.stream("hi"):
            raise ZeroDivisionError

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            with pytest.raises(ZeroDivisionError):
                await fall_over(client)
            assert await left(triton.wait_for(1))

    run(scenario())


@pytest.mark.parametrize("streamed", [True, False])
def test_cancelling_the_task_cancels_on_the_server(triton: FakeTriton, streamed: bool) -> None:
    triton.script = tell_then_hang("a")

    async def ask(client: AsyncClient) -> None:
        if streamed:
            async for _ in client.stream("hi"):
                pass
        else:
            await client.generate("hi")

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            task = asyncio.create_task(ask(client))
            request = await asyncio.to_thread(triton.wait_for, 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await left(request)

    run(scenario())


def test_a_limit_of_asyncio_cancels_on_the_server(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a")

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(client.generate("hi"), 0.3)
            assert await left(triton.wait_for(1))

    run(scenario())


def test_the_timeout_ends_the_request_on_both_sides(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a")

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            with pytest.raises(DeadlineExceeded):
                await client.generate("hi", timeout_s=0.3)
            assert await left(triton.wait_for(1))

    run(scenario())
    assert triton.wait_for(1).parameter("timeout") == 300_000


def test_closing_from_another_task_ends_the_iteration_with_cancelled(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a")

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            stream = client.stream("hi", request_id="mine")
            asyncio.get_running_loop().call_later(0.2, stream.close)
            with pytest.raises(Cancelled) as caught:
                _ = [chunk async for chunk in stream]
            assert caught.value.request_id == "mine"
            assert await left(triton.wait_for(1))

    run(scenario())


def test_the_ensemble_door_also_sends_a_stop_with_the_same_id(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a")

    async def scenario() -> None:
        async with AsyncClient(triton.url, "ensemble") as client:
            async for _ in client.stream("hi"):
                break

    run(scenario())
    first, stop = triton.wait_for(1), triton.wait_for(2)
    assert (first.message.model_name, stop.message.model_name) == ("ensemble", "scheduler")
    assert stop.message.id == first.message.id != ""
    assert stop.tensor("stop")[0, 0]


def test_closing_the_client_cancels_what_runs(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a")

    async def scenario() -> None:
        client = AsyncClient(triton.url, "ensemble")
        stream = client.stream("hi")
        await stream.__anext__()
        await client.close()
        assert await left(triton.wait_for(1))
        with pytest.raises(ClientError, match="closed"):
            await client.generate("hi")
        await client.close()

    run(scenario())
    assert triton.wait_for(2).tensor("stop")[0, 0]


def test_an_error_in_mid_stream_comes_after_the_text_before_it(triton: FakeTriton) -> None:
    triton.script = fail("the engine died", "a")

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            stream = client.stream("hi")
            assert (await stream.__anext__()).text == "a"
            with pytest.raises(ServerError, match="the engine died"):
                await stream.__anext__()

    run(scenario())


def test_errors_get_their_class(triton: FakeTriton) -> None:
    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            triton.script = fail("the queue is full: 9 requests wait; retry in 2.50 s")
            with pytest.raises(ServerUnavailable) as caught:
                await client.generate("hi")
            assert caught.value.retry_after_s == 2.5
            triton.script = replay(response(text="a"))
            with pytest.raises(ConnectionLost, match="before the answer was complete"):
                await client.generate("hi")
            with pytest.raises(InvalidRequest):
                client.stream("hi", top_p=2.0)

    run(scenario())


def test_a_server_that_goes_away_in_mid_stream_is_an_error_at_once(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a")

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            stream = client.stream("hi")
            await stream.__anext__()
            began = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(triton.stop))
            with pytest.raises(ClientError):
                await stream.__anext__()
            assert time.monotonic() - began < 5
            await stopping
            with pytest.raises(ConnectionLost):
                await client.generate("hi", timeout_s=5)
            assert not await client.is_ready()

    run(scenario())


def test_many_requests_at_once(triton: FakeTriton) -> None:
    def script(request: Received) -> Iterator[Any]:
        for piece in request.text.split("-"):
            yield response(numbers(), text=piece)
        yield response(final=True)

    triton.script = script

    async def scenario() -> None:
        async with AsyncClient(triton.url) as client:
            answers = await asyncio.gather(*(client.generate(f"a{n}-ü") for n in range(60)))
            assert [answer.text for answer in answers] == [f"a{n}ü" for n in range(60)]

    run(scenario())


def test_control_requests(triton: FakeTriton) -> None:
    triton.script = tell_json({"policy": "fcfs", "queue_length": 2})

    async def scenario() -> None:
        async with AsyncClient(triton.url, "ensemble", metadata={"X-Route": "blue"}) as client:
            assert (await client.status()).queue_length == 2
            assert (await client.set_policy("fcfs", "secret")).policy == "fcfs"
            await client.set_limits("secret", max_inflight=8, max_wait_s=math.inf)
            await client.drain("secret")
            await client.resume("secret")
            await client.stop("some-id")
            await client.set_policy("ssjf-aging", "secret", {"aging_rate": None})
            assert await client.is_ready()
            triton.script = fail("control is 'x', allowed: status")
            with pytest.raises(InvalidRequest):
                await client.status()

    run(scenario())
    controls = [request.parameter("control") for request in triton.received]
    assert controls[:5] == ["status", "set_policy", "set_limits", "drain", "resume"]
    assert triton.received[2].parameter("limits") == '{"max_inflight": 8, "max_wait_s": null}'
    assert [request.parameter("settings") for request in triton.received[:7]] == [None] * 6 + ['{"aging_rate": null}']
    assert {request.message.model_name for request in triton.received} == {"scheduler"}
    assert {request.metadata["x-route"] for request in triton.received} == {"blue"}
