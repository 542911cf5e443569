from __future__ import annotations

import gc
import json
import math
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from ssjf_client import (
    Cancelled,
    Client,
    ClientError,
    ConnectionLost,
    DeadlineExceeded,
    GenerateRequest,
    InvalidRequest,
    ServerError,
    ServerUnavailable,
    TlsOptions,
)
from tests.unit.client.fake_triton import (
    FakeTriton,
    Received,
    abort,
    fail,
    numbers,
    replay,
    response,
    tell,
    tell_json,
    tell_then_hang,
)

LEAVE_S = 5.0


def test_generate_returns_the_answer_and_its_numbers(triton: FakeTriton, client: Client) -> None:
    answer = client.generate("hi", max_tokens=20, request_id="mine")
    assert answer.text == "Hello world!"
    assert answer.request_id == "mine"
    assert (answer.predicted_tokens, answer.queue_time_s, answer.input_tokens) == (42, 1.5, 7)
    assert answer.output_tokens == 3
    assert answer.finish_reason == "stop"
    assert answer.complete
    assert answer.time_to_first_token_s is not None
    assert 0 < answer.time_to_first_token_s <= answer.elapsed_s


def test_an_answer_of_max_tokens_ended_by_length(client: Client) -> None:
    assert client.generate("hi", max_tokens=3).finish_reason == "length"


def test_a_server_that_counts_nothing_leaves_numbers_open(triton: FakeTriton, client: Client) -> None:
    triton.script = replay(response(text="a"), response(final=True))
    answer = client.generate("hi")
    assert (answer.output_tokens, answer.predicted_tokens, answer.finish_reason) == (None, None, None)
    assert answer.complete


def test_stream_gives_the_pieces_of_the_unstreamed_text(triton: FakeTriton, client: Client) -> None:
    triton.script = tell("Grüße", " an", " 世界", " 🌍", "")
    stream = client.stream("hi")
    chunks = list(stream)
    assert [chunk.text for chunk in chunks] == ["Grüße", " an", " 世界", " 🌍", ""]
    assert [chunk.index for chunk in chunks] == [0, 1, 2, 3, 4]
    assert [chunk.tokens for chunk in chunks] == [1, 1, 1, 1, 1]
    assert stream.result.text == client.generate("hi").text
    assert triton.wait_for(1).tensor("stream")[0, 0]
    assert not triton.wait_for(2).tensor("stream")[0, 0]


def test_the_final_flag_may_come_with_the_last_text(triton: FakeTriton, client: Client) -> None:
    triton.script = replay(response(text="a"), response(text="b", final=True))
    stream = client.stream("hi")
    assert [chunk.text for chunk in stream] == ["a", "b"]
    assert stream.result.complete


def test_chunks_can_be_taken_one_by_one(client: Client) -> None:
    stream = client.stream("hi")
    assert next(stream).text == "Hello"
    assert next(stream).text == " world"
    assert stream.result.text == "Hello world"
    assert not stream.result.complete
    assert [chunk.text for chunk in stream] == ["!"]
    with pytest.raises(StopIteration):
        next(stream)


def test_breaking_out_of_the_loop_cancels_on_the_server(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_then_hang("a", "b")
    stream = client.stream("hi")
    for chunk in stream:
        if chunk.text == "b":
            break
    assert triton.wait_for(1).cancelled.wait(LEAVE_S)
    assert stream.result.text == "ab"
    assert not stream.result.complete


def test_an_exception_in_the_loop_cancels_on_the_server(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_then_hang("a")

    def fall_over() -> None:
        for _ in client.stream("hi"):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fall_over()
    assert triton.wait_for(1).cancelled.wait(LEAVE_S)


def test_leaving_a_generator_around_the_stream_cancels_on_the_server(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_then_hang("a")

    def texts() -> Iterator[str]:
        for chunk in client.stream("hi"):
            yield chunk.text

    generator = texts()
    assert next(generator) == "a"
    generator.close()  # type: ignore[attr-defined]
    assert triton.wait_for(1).cancelled.wait(LEAVE_S)


def test_leaving_the_with_block_cancels_on_the_server(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_then_hang("a")
    with client.stream("hi") as stream:
        assert next(stream).text == "a"
    assert triton.wait_for(1).cancelled.wait(LEAVE_S)
    with pytest.raises(Cancelled):
        next(stream)


def test_dropping_the_stream_cancels_on_the_server(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_then_hang("a")
    stream = client.stream("hi")
    next(stream)
    del stream
    gc.collect()
    assert triton.wait_for(1).cancelled.wait(LEAVE_S)


def test_closing_from_another_thread_ends_the_iteration_with_cancelled(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_then_hang("a")
    stream = client.stream("hi", request_id="mine")
    threading.Timer(0.2, stream.close).start()
    with pytest.raises(Cancelled) as caught:
        list(stream)
    assert caught.value.request_id == "mine"
    assert triton.wait_for(1).cancelled.wait(LEAVE_S)


def test_closing_after_the_answer_cancels_nothing(triton: FakeTriton, client: Client) -> None:
    stream = client.stream("hi")
    list(stream)
    stream.close()
    assert triton.wait_for(1).answered.wait(LEAVE_S)
    assert not triton.wait_for(1).cancelled.is_set()


def test_cancelling_one_stream_leaves_the_others_alone(triton: FakeTriton, client: Client) -> None:
    go = threading.Event()

    def script(request: Received) -> Iterator[Any]:
        yield response(text="a")
        assert go.wait(10)
        yield response(text="b", final=True)

    triton.script = script
    streams = [client.stream("hi") for _ in range(4)]
    assert [next(stream).text for stream in streams] == ["a"] * 4
    streams[0].close()
    triton.wait_for(4)
    go.set()
    assert [[chunk.text for chunk in stream] for stream in streams[1:]] == [["b"]] * 3


def test_the_ensemble_door_also_sends_a_stop_with_the_same_id(triton: FakeTriton) -> None:
    triton.script = tell_then_hang("a")
    with Client(triton.url, "ensemble") as client:
        for _ in client.stream("hi"):
            break
    first, stop = triton.wait_for(1), triton.wait_for(2)
    assert first.message.model_name == "ensemble"
    assert stop.message.model_name == "scheduler"
    assert stop.message.id == first.message.id != ""
    assert stop.tensor("stop")[0, 0]


@pytest.mark.parametrize("door", ["scheduler", "ensemble"])
def test_closing_the_client_cancels_what_runs(triton: FakeTriton, door: Any) -> None:
    triton.script = tell_then_hang("a")
    client = Client(triton.url, door)
    stream = client.stream("hi")
    next(stream)
    client.close()
    assert triton.wait_for(1).cancelled.wait(LEAVE_S)
    if door == "ensemble":
        assert triton.wait_for(2).tensor("stop")[0, 0]
    with pytest.raises(Cancelled):
        next(stream)
    with pytest.raises(ClientError, match="closed"):
        client.generate("hi")
    client.close()


def test_an_answered_ensemble_request_sends_no_stop(triton: FakeTriton) -> None:
    with Client(triton.url, "ensemble") as client:
        client.generate("hi")
        list(client.stream("hi"))
    assert len(triton.received) == 2


def test_the_unary_door_asks_for_a_whole_answer(triton: FakeTriton) -> None:
    with Client(triton.url, "unary") as client:
        assert [chunk.text for chunk in client.stream("hi")] == ["Hello", " world", "!"]
    assert not triton.wait_for(1).tensor("stream")[0, 0]


def test_the_timeout_ends_the_request_on_both_sides(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_then_hang("a")
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.generate("hi", timeout_s=0.3)
    assert 0.25 < time.monotonic() - began < 5
    request = triton.wait_for(1)
    assert request.cancelled.wait(LEAVE_S)
    assert request.parameter("timeout") == 300_000


def test_an_error_in_mid_stream_comes_after_the_text_before_it(triton: FakeTriton, client: Client) -> None:
    triton.script = fail("the engine died", "a", "b")
    stream = client.stream("hi", request_id="mine")
    assert [next(stream).text, next(stream).text] == ["a", "b"]
    with pytest.raises(ServerError, match="the engine died") as caught:
        next(stream)
    assert (stream.result.text, stream.result.complete) == ("ab", False)
    assert caught.value.request_id == "mine"


def test_a_full_queue_says_when_to_retry(triton: FakeTriton, client: Client) -> None:
    triton.script = fail("the queue is full: 1000 requests wait, the limit is 1000 requests; retry in 2.50 s")
    with pytest.raises(ServerUnavailable) as caught:
        client.generate("hi")
    assert not isinstance(caught.value, ConnectionLost)
    assert caught.value.retry_after_s == 2.5


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, InvalidRequest),
        (grpc.StatusCode.UNAVAILABLE, ServerUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ServerUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, Cancelled),
        (grpc.StatusCode.INTERNAL, ServerError),
    ],
)
def test_a_grpc_status_from_the_server_gets_its_class(
    triton: FakeTriton, client: Client, code: Any, kind: type[ClientError]
) -> None:
    triton.script = abort(code, "in its own words")
    with pytest.raises(kind, match="in its own words") as caught:
        client.generate("hi")
    assert type(caught.value) is kind


def test_a_stream_that_ends_early_is_an_error(triton: FakeTriton, client: Client) -> None:
    triton.script = replay(response(text="a"))
    with pytest.raises(ConnectionLost, match="before the answer was complete"):
        client.generate("hi")


def test_a_server_that_goes_away_in_mid_stream_is_an_error_at_once(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_then_hang("a")
    stream = client.stream("hi")
    assert next(stream).text == "a"
    threading.Timer(0.1, triton.stop).start()
    began = time.monotonic()
    with pytest.raises(ClientError):
        next(stream)
    assert time.monotonic() - began < 5


def test_no_server_is_connection_lost() -> None:
    silent = FakeTriton()
    silent.stop()
    with Client(silent.url) as client:
        with pytest.raises(ConnectionLost):
            client.generate("hi", timeout_s=5)
        assert not client.is_ready()


def test_many_threads_share_a_client(triton: FakeTriton, client: Client) -> None:
    def script(request: Received) -> Iterator[Any]:
        for piece in request.text.split("-"):
            yield response(numbers(), text=piece)
        yield response(final=True)

    triton.script = script

    def ask(number: int) -> str:
        return client.generate(f"a{number}-b{number}-ü").text

    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(ask, range(200))) == [f"a{n}b{n}ü" for n in range(200)]
    assert len({request.message.id for request in triton.received}) == 200


def test_headers_reach_the_server(triton: FakeTriton) -> None:
    with Client(triton.url, metadata={"X-Route": "blue"}) as client:
        client.generate("hi")
        client.stop("some-id")
    assert [request.metadata["x-route"] for request in triton.received] == ["blue", "blue"]


def test_status_is_a_control_request(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_json({"policy": "fcfs", "queue_length": 2, "new": 1})
    status = client.status("secret")
    assert (status.policy, status.queue_length, status.extra) == ("fcfs", 2, {"new": 1})
    client.status()
    with_token, without = triton.wait_for(1), triton.wait_for(2)
    assert (with_token.parameter("control"), with_token.parameter("control_token")) == ("status", "secret")
    assert without.parameter("control_token") is None
    assert with_token.text


def test_policy_and_limits_are_control_requests(triton: FakeTriton) -> None:
    triton.script = tell_json({"policy": "fcfs"})
    with Client(triton.url, "ensemble") as client:
        assert client.set_policy("fcfs", "secret").policy == "fcfs"
        client.set_limits("secret", max_inflight=8)
        client.drain("secret")
        client.resume("secret")
        client.set_policy("ssjf-aging", "secret", {"aging_rate": 4})
        with pytest.raises(InvalidRequest, match="limits"):
            client.set_limits("secret")
        with pytest.raises(InvalidRequest, match="limits: max_inflight is inf"):
            client.set_limits("secret", max_inflight=math.inf)
    assert triton.wait_for(5).parameter("settings") == '{"aging_rate": 4}'
    policy, limits = triton.wait_for(1), triton.wait_for(2)
    assert [request.parameter("control") for request in triton.received[2:4]] == ["drain", "resume"]
    assert policy.parameter("settings") is None
    assert policy.message.model_name == "scheduler"
    assert (policy.parameter("control"), policy.parameter("policy")) == ("set_policy", "fcfs")
    assert (limits.parameter("control"), limits.parameter("limits")) == ("set_limits", '{"max_inflight": 8}')
    assert limits.parameter("control_token") == "secret"


def test_no_bound_on_waiting_is_null_on_the_wire_and_inf_here(triton: FakeTriton, client: Client) -> None:
    triton.script = tell_json({"limits": {"max_wait_s": None, "max_inflight_tokens": None}})
    status = client.set_limits("secret", max_wait_s=math.inf, max_inflight_tokens=None, batching="none")
    sent = triton.wait_for(1).parameter("limits")
    assert json.loads(sent) == {"max_wait_s": None, "max_inflight_tokens": None, "batching": "none"}
    assert status.limits == {"max_wait_s": math.inf, "max_inflight_tokens": None}
    assert status.as_dict() == {"limits": {"max_wait_s": None, "max_inflight_tokens": None}}


def test_a_refused_control_request_is_an_error(triton: FakeTriton, client: Client) -> None:
    triton.script = fail("control 'set_policy' needs the control_token of the scheduler's configuration")
    with pytest.raises(InvalidRequest, match="needs the control_token"):
        client.set_policy("fcfs", "guess")


def test_is_ready_asks_for_the_door_s_model(triton: FakeTriton, client: Client) -> None:
    assert client.is_ready()
    triton.ready = False
    assert not client.is_ready()


@pytest.mark.parametrize("url", ["http://127.0.0.1:8001", "", "grpc://x:1"])
def test_an_address_that_is_no_host_and_port_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="must be host:port"):
        Client(url)


def test_tls_files_are_checked(tmp_path: Any) -> None:
    with pytest.raises(InvalidRequest, match="given together"):
        TlsOptions(certificate_chain="a.pem")
    with pytest.raises(InvalidRequest, match=r"root_certificates=.*must be a readable file"):
        Client("127.0.0.1:1", tls=TlsOptions(root_certificates=tmp_path / "none.pem"))


def test_a_wrong_request_is_refused_before_anything_is_sent(triton: FakeTriton, client: Client) -> None:
    with pytest.raises(InvalidRequest):
        client.stream("hi", top_p=2.0)
    with pytest.raises(InvalidRequest):
        client.generate(GenerateRequest("hi"), max_tokens=0)
    assert triton.received == []
