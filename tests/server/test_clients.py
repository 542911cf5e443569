"""Clients that were written for TensorRT-LLM's ensemble work unchanged."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.grpc.aio as grpcaio
import tritonclient.http as httpclient
import tritonclient.http.aio as httpaio

from ssjf.tensors import CLIENT_OPTIONAL_INPUTS, CLIENT_OUTPUTS
from ssjf_client import Client
from ssjf_tools.serve.throwaway import Throwaway
from tests.server.asking import TIMEOUT_S, ask, inputs, note, post, tensors

QUESTION = "What is the capital of France?"
GREEDY = {"top_k": np.array([[1]], np.int32)}
STREAM = {"stream": np.array([[True]])}


@pytest.fixture(scope="module")
def expected(server: Throwaway) -> str:
    """The engine's own greedy answer, asked directly with token ids and decoded with the model's tokenizer."""
    from tokenizers import Tokenizer

    from ssjf_tools.serve.options import ServeOptions

    with grpcclient.InferenceServerClient(server.grpc_url) as connection:
        text = {"text_input": np.array([[QUESTION.encode()]], dtype=np.object_)}
        ids = connection.infer("preprocessing", inputs(text)).as_numpy("input_ids")
    direct = {
        "input_ids": ids,
        "input_lengths": np.array([[ids.shape[1]]], np.int32),
        "request_output_len": np.array([[32]], np.int32),
        "runtime_top_k": np.array([[1]], np.int32),
        "streaming": np.array([[True]]),
    }
    answer = ask(server.grpc_url, "tensorrt_llm", direct)
    tokens = [int(token) for piece in answer.outputs for token in piece["output_ids"].reshape(-1)]
    tokenizer = Tokenizer.from_file(str(ServeOptions().assets / "smollm2" / "tokenizer.json"))
    return tokenizer.decode(tokens, skip_special_tokens=True)


def test_greedy_text_is_the_engines_own(server: Throwaway, expected: str) -> None:
    answer = ask(server.grpc_url, "ensemble", tensors(QUESTION, 32, **GREEDY))
    assert answer.text == expected
    assert "Paris" in expected


def test_streamed_pieces_join_to_the_unstreamed_text(server: Throwaway, expected: str) -> None:
    streamed = ask(server.grpc_url, "ensemble", tensors(QUESTION, 32, **GREEDY, **STREAM))
    assert len(streamed.texts) > 1
    assert streamed.text == expected


def test_every_response_has_every_output(server: Throwaway) -> None:
    answer = ask(server.grpc_url, "ensemble", tensors(QUESTION, 8, **STREAM))
    for output in answer.outputs:
        assert sorted(output) == sorted(spec.name for spec in CLIENT_OUTPUTS)
        assert output["predicted_tokens"].item() >= 1
        assert output["queue_time_us"].item() >= 0


def test_generate_over_http(server: Throwaway, expected: str) -> None:
    body = {"text_input": QUESTION, "max_tokens": 32, "top_k": 1}
    for door in ("ensemble", "scheduler", "unary"):
        assert post(f"{server.http_url}/v2/models/{door}/generate", body)["text_output"] == expected


def test_generate_stream_over_http(server: Throwaway, expected: str) -> None:
    body = json.dumps({"text_input": QUESTION, "max_tokens": 32, "top_k": 1, "stream": True}).encode()
    url = f"{server.http_url}/v2/models/ensemble/generate_stream"
    with urllib.request.urlopen(url, body, timeout=TIMEOUT_S) as response:
        events = [json.loads(line[5:]) for line in response if line.startswith(b"data:")]
    assert len(events) > 1
    assert "".join(event["text_output"] for event in events) == expected


def test_request_parameters_travel_as_extra_json_keys(server: Throwaway) -> None:
    body = {"text_input": QUESTION, "max_tokens": 4, "priority_class": 1, "tenant": "a", "deadline_ms": 30000}
    assert post(f"{server.http_url}/v2/models/ensemble/generate", body)["text_output"]


def test_grpc_aio_streams(server: Throwaway, expected: str) -> None:
    async def scenario() -> str:
        async def requests() -> Any:
            yield {
                "model_name": "ensemble",
                "inputs": inputs(tensors(QUESTION, 32, **GREEDY, **STREAM)),
                "enable_empty_final_response": True,
            }

        async with grpcaio.InferenceServerClient(server.grpc_url) as connection:
            pieces = []
            async for result, error in connection.stream_infer(requests()):
                assert error is None
                response = result.get_response()
                if response.outputs:
                    pieces.append(result.as_numpy("text_output").item().decode())
                if response.parameters["triton_final_response"].bool_param:
                    return "".join(pieces)
        raise AssertionError("no final response")

    assert asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_S)) == expected


def test_plain_infer_through_the_unary_door(server: Throwaway, expected: str) -> None:
    arrays = tensors(QUESTION, 32, **GREEDY)
    with grpcclient.InferenceServerClient(server.grpc_url) as connection:
        assert text_of(connection.infer("unary", inputs(arrays))) == expected
        handle: list[Any] = []
        connection.async_infer("unary", inputs(arrays), callback=lambda result, error: handle.append(error or result))
        wait_until(lambda: bool(handle))
        assert text_of(handle[0]) == expected
    with httpclient.InferenceServerClient(server.http_url.removeprefix("http://")) as connection:
        assert text_of(connection.infer("unary", inputs(arrays, httpclient))) == expected
        pending = connection.async_infer("unary", inputs(arrays, httpclient))
        assert text_of(pending.get_result(timeout=TIMEOUT_S)) == expected


def test_plain_aio_infer_through_the_unary_door(server: Throwaway, expected: str) -> None:
    async def scenario() -> list[str]:
        arrays = tensors(QUESTION, 32, **GREEDY)
        async with grpcaio.InferenceServerClient(server.grpc_url) as connection:
            texts = [text_of(await connection.infer("unary", inputs(arrays)))]
        async with httpaio.InferenceServerClient(server.http_url.removeprefix("http://")) as connection:
            texts.append(text_of(await connection.infer("unary", inputs(arrays, httpclient))))
        return texts

    assert asyncio.run(asyncio.wait_for(scenario(), TIMEOUT_S)) == [expected, expected]


def test_a_request_with_every_optional_input_at_its_neutral_value(server: Throwaway, expected: str) -> None:
    neutral = {
        "bad_words": np.array([[b""]], dtype=np.object_),
        "stop_words": np.array([[b""]], dtype=np.object_),
        "end_id": np.array([[2]], np.int32),
        "pad_id": np.array([[2]], np.int32),
        "top_k": np.array([[1]], np.int32),
        "top_p": np.array([[1.0]], np.float32),
        "temperature": np.array([[1.0]], np.float32),
        "length_penalty": np.array([[1.0]], np.float32),
        "repetition_penalty": np.array([[1.1]], np.float32),  # the CPU model's default, as in `expected`
        "presence_penalty": np.array([[0.0]], np.float32),
        "frequency_penalty": np.array([[0.0]], np.float32),
        "min_tokens": np.array([[0]], np.int32),
        "seed": np.array([[0]], np.uint64),
        "beam_width": np.array([[1]], np.int32),
        "num_return_sequences": np.array([[1]], np.int32),
        "stream": np.array([[False]]),
        "stop": np.array([[False]]),
        "exclude_input_in_output": np.array([[True]]),
        "return_log_probs": np.array([[False]]),
        "return_num_input_tokens": np.array([[True]]),
        "return_num_output_tokens": np.array([[True]]),
    }
    older = {"min_length": np.array([[0]], np.int32), "random_seed": np.array([[0]], np.uint64)}
    assert sorted([*neutral, *older]) == sorted(spec.name for spec in CLIENT_OPTIONAL_INPUTS)
    for door in ("ensemble", "scheduler"):
        answer = ask(server.grpc_url, door, tensors(QUESTION, 32, **neutral))
        assert (answer.error, answer.text, answer.finals) == (None, expected, 1)
    assert ask(server.grpc_url, "ensemble", tensors(QUESTION, 32, **older, **GREEDY)).text == expected


@pytest.mark.parametrize("door", ["ensemble", "scheduler"])
def test_several_rows_in_one_request(server: Throwaway, door: str) -> None:
    texts = [b"Say hello.", b"What is the capital of France?", b"Count to three."]
    rows = {
        "text_input": np.array([[text] for text in texts], dtype=np.object_),
        "max_tokens": np.array([[4], [12], [6]], np.int32),
    }
    answer = ask(server.grpc_url, door, rows)
    assert answer.error is None
    assert sorted(output["batch_index"].item() for output in answer.outputs) == [0, 1, 2]
    assert answer.finals == 1
    with grpcclient.InferenceServerClient(server.grpc_url) as connection:
        assert connection.infer("unary", inputs(rows)).as_numpy("text_output").shape == (3, 1)


def test_log_probabilities_come_when_asked_for(server: Throwaway) -> None:
    answer = ask(server.grpc_url, "ensemble", tensors(QUESTION, 6, return_log_probs=np.array([[True]]), **GREEDY))
    (output,) = answer.outputs
    assert output["output_log_probs"].shape == (1, 1, output["num_output_tokens"].item())
    assert np.isclose(output["output_log_probs"].sum(), output["cum_log_probs"].item(), atol=1e-3)
    assert output["cum_log_probs"].item() < 0


def test_stop_words_cut_across_token_borders(server: Throwaway, expected: str) -> None:
    word = expected[5:9]  # from the middle of one word into the next
    answer = ask(
        server.grpc_url,
        "scheduler",
        tensors(QUESTION, 32, stop_words=np.array([[word.encode()]], dtype=np.object_), **GREEDY),
    )
    assert answer.text == expected[: expected.find(word)]


def test_many_requests_share_one_stream(server: Throwaway) -> None:
    from queue import Queue

    from tests.server.asking import Answer

    events: Queue[tuple[Any, Any]] = Queue()
    answers = {str(at): Answer() for at in range(8)}
    connection = grpcclient.InferenceServerClient(server.grpc_url)
    connection.start_stream(lambda result, error: events.put((result, error)))
    for request_id in answers:
        connection.async_stream_infer(
            "ensemble", inputs(tensors(QUESTION, 6)), request_id=request_id, enable_empty_final_response=True
        )
    while not all(answer.finals for answer in answers.values()):
        result, error = events.get(timeout=TIMEOUT_S)
        assert error is None
        note(answers[result.get_response().id], result)
    connection.stop_stream()
    connection.close()
    assert all(answer.text for answer in answers.values())


def test_our_client_library(client: Client, expected: str) -> None:
    assert client.generate(QUESTION, max_tokens=32, top_k=1).text == expected
    with client.stream(QUESTION, max_tokens=32, top_k=1) as chunks:
        assert "".join(chunk.text for chunk in chunks) == expected


def text_of(result: Any) -> str:
    return str(result.as_numpy("text_output").item().decode())


def wait_until(condition: Any) -> None:
    import time

    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
