"""Each mistake is a clear error on that request alone, while the server goes on answering others."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpcclient
import tritonclient.http as httpclient
from tritonclient.utils import InferenceServerException

from ssjf_tools.serve.throwaway import Throwaway
from tests.server.asking import ask, inputs, tensors

# What is wrong, the words that the error must hold, the request.
MISTAKES: list[tuple[str, str, dict[str, Any]]] = [
    ("empty text", "text_input", tensors("", 4)),
    ("blank text", "text_input", tensors(" \n", 4)),
    ("not UTF-8", "UTF-8", tensors(b"ab\xff\xfe", 4)),
    ("prompt longer than the context", "tokens", tensors("word " * 3000, 4)),
    ("a prompt of 1 MB", "bytes", tensors("x" * 1_000_000, 4)),
    ("prompt and answer longer than the context", "context length", tensors("word " * 1500, 1000)),
    ("no tokens wanted", "max_tokens is 0", tensors("hi", 0)),
    ("fewer than no tokens", "max_tokens is -1", tensors("hi", -1)),
    ("too many tokens", "1 to 1024", tensors("hi", 5000)),
    (
        "temperature that is no number",
        "temperature is nan",
        tensors("hi", 4, temperature=np.array([[np.nan]], np.float32)),
    ),
    ("top_p beyond 1", "top_p", tensors("hi", 4, top_p=np.array([[1.5]], np.float32))),
    ("beams on an engine without", "beam_width", tensors("hi", 4, beam_width=np.array([[2]], np.int32))),
    ("bad words on an engine without", "bad_words", tensors("hi", 4, bad_words=np.array([[b"no"]], dtype=np.object_))),
    ("wrong dtype", "data-type", tensors("hi", 4, temperature=np.array([[1]], np.int32))),
    ("wrong shape", "shape", tensors("hi", 4, temperature=np.array([[1.0, 2.0]], np.float32))),
    ("rows that do not agree", "batch", tensors("hi", 4, temperature=np.array([[1.0], [2.0]], np.float32))),
    ("an input that does not exist", "lora_task_id", tensors("hi", 4, lora_task_id=np.array([[1]], np.uint64))),
]


@pytest.fixture
def bystander(server: Throwaway) -> Iterator[list[str]]:
    """Keeps asking good questions in the background; the test sees their answers."""
    texts: list[str] = []
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            answer = ask(server.grpc_url, "ensemble", tensors("Say hello.", 3))
            texts.append(answer.text if answer.error is None else f"error: {answer.error}")

    thread = threading.Thread(target=run)
    thread.start()
    yield texts
    over.set()
    thread.join()
    assert texts
    assert not [text for text in texts if not text or text.startswith("error")]


@pytest.mark.parametrize("door", ["ensemble", "scheduler", "unary"])
def test_every_mistake_is_named_and_harms_nobody_else(server: Throwaway, bystander: list[str], door: str) -> None:
    for what, words, arrays in MISTAKES:
        error = infer_error(server, arrays) if door == "unary" else ask(server.grpc_url, door, arrays).error
        assert error is not None, what
        assert words in error, f"{what}: {error}"


@pytest.mark.parametrize(
    ("name", "value"),
    [("priority_class", -1), ("priority_class", 99), ("deadline_ms", 0), ("tenant", 3), ("expected_tokens", "x")],
)
def test_a_bad_request_parameter_is_named(server: Throwaway, name: str, value: Any) -> None:
    for door in ("ensemble", "scheduler"):
        answer = ask(server.grpc_url, door, tensors("hi", 2), **{name: value})
        assert answer.error is not None
        assert name in answer.error


def test_unary_errors_carry_their_grpc_code(server: Throwaway) -> None:
    with grpcclient.InferenceServerClient(server.grpc_url) as connection:
        with pytest.raises(InferenceServerException) as caught:
            connection.infer("unary", inputs(tensors("", 4)))
        assert "INVALID_ARGUMENT" in str(caught.value.status())
        with pytest.raises(InferenceServerException) as caught:
            connection.infer("unary", inputs(tensors("hi", 900)), parameters={"deadline_ms": 1})
        assert "CANCELLED" in str(caught.value.status())


def test_an_error_over_http_is_a_400_with_the_reason(server: Throwaway) -> None:
    with httpclient.InferenceServerClient(server.http_url.removeprefix("http://")) as connection:
        with pytest.raises(InferenceServerException, match="max_tokens is 0") as caught:
            connection.infer("unary", inputs(tensors("hi", 0), httpclient))
        assert caught.value.status() == "400"


def infer_error(server: Throwaway, arrays: dict[str, Any]) -> str | None:
    with grpcclient.InferenceServerClient(server.grpc_url) as connection:
        try:
            connection.infer("unary", inputs(arrays))
        except InferenceServerException as error:
            return str(error)
    return None
