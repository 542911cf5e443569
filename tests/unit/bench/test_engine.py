"""What the benchmark says to a server whose engine it cannot ask directly, and where the size of a chunk comes from."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest

from ssjf_tools.bench.live.engine import chosen_chunk, engine_parameters
from ssjf_tools.bench.streams import StreamClient

TOKENS = ("input_ids", "input_lengths", "request_output_len", "streaming")


def config(*inputs: str, **parameters: str) -> Any:
    return SimpleNamespace(
        input=[SimpleNamespace(name=name) for name in inputs],
        parameters={name: SimpleNamespace(string_value=value) for name, value in parameters.items()},
    )


class FakeServer(StreamClient):
    """Knows these models and no others."""

    def __init__(self, **models: Any):
        self._models = models

    async def model_config(self, model: str) -> Any:
        if model not in self._models:
            nothing = grpc.aio.Metadata()
            details = f"Request for unknown model: '{model}' is not found"
            raise grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, nothing, nothing, details=details)
        return self._models[model]


def parameters(server: FakeServer) -> dict[str, str]:
    return asyncio.run(engine_parameters(server, "localhost:1", "--calibrate"))


def test_the_engines_parameters_are_read() -> None:
    server = FakeServer(preprocessing=config("text_input"), tensorrt_llm=config(*TOKENS, max_batched_tokens="64"))
    assert parameters(server) == {"max_batched_tokens": "64"}


@pytest.mark.parametrize(
    ("models", "problem"),
    [
        ({"preprocessing": config("text_input")}, "tensorrt_llm: Request for unknown model: 'tensorrt_llm'"),
        ({"tensorrt_llm": config(*TOKENS)}, "preprocessing: Request for unknown model"),
        (
            {"preprocessing": config("text_input"), "tensorrt_llm": config("text_input", "streaming")},
            "tensorrt_llm: it has no input input_ids, input_lengths, request_output_len",
        ),
    ],
    ids=["elsewhere", "no tokenizer", "llmapi"],
)
def test_another_server_is_told_what_was_looked_for(models: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match="--calibrate asks the engine itself") as caught:
        parameters(FakeServer(**models))
    text = str(caught.value)
    assert problem in text
    assert "localhost:1" in text
    assert "preprocessing (text_input) and tensorrt_llm (input_ids" in text
    assert "inflight_batcher_llm" in text


@pytest.mark.parametrize(
    ("given", "says", "environment", "own", "chunk", "source"),
    [
        (32, "64", {}, True, 32, "--chunk-tokens"),
        (0, "64", {}, True, None, "--chunk-tokens"),
        (None, "64", {}, True, 64, "max_batched_tokens of the server's model"),
        (None, "64", {"SSJF_MAX_BATCHED_TOKENS": "96"}, True, 96, "SSJF_MAX_BATCHED_TOKENS"),
        # The environment of a server that runs elsewhere is not ours.
        (None, "64", {"SSJF_MAX_BATCHED_TOKENS": "96"}, False, 64, "unless SSJF_MAX_BATCHED_TOKENS says otherwise"),
        (None, None, {}, False, None, "pass --chunk-tokens N"),
        (None, "${chunk}", {}, False, None, "pass --chunk-tokens N"),
    ],
    ids=["given", "given none", "configured", "environment", "foreign", "unknown", "no number"],
)
def test_where_the_size_of_a_chunk_is_from(
    given: int | None, says: str | None, environment: dict[str, str], own: bool, chunk: int | None, source: str
) -> None:
    known = {} if says is None else {"max_batched_tokens": says}
    found, where = chosen_chunk(given, known, environment, own)
    assert found == chunk
    assert source in where
