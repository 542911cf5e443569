"""An engine's Triton on loopback: real gRPC, scripted answers. It echoes the prompt, token by token."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2
from tritonclient.utils import np_to_triton_dtype

from ssjf.service.engine.wire import FINAL_PARAMETER, to_bytes
from tests.unit.byte_tokenizer import byte_tokenizer

TOKENIZER = byte_tokenizer()
DEAD_STUB = (
    "Failed to process the request(s) for model instance 'tensorrt_llm_0_0', message: Stub process is not healthy."
)
SERVICE = "inference.GRPCInferenceService"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class FakeTriton:
    """One server. `hang_after`: tokens after which streams fall silent; `dead_stub`: as after `kill -9` of its engine.

    `text`: answers as the llmapi flavour does. `requests` and `metadata` are what it was sent; `busy` and `most` count
    streams that run now and ran at once; `foreign` requests are counted, too, as if somebody else had sent them.
    """

    def __init__(self, port: int, *, text: bool = False, credentials: grpc.ServerCredentials | None = None):
        self.port = port
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.busy = self.most = 0
        self.hang_after: int | None = None
        self.break_after: int | None = None
        self.dead_stub = False
        self.ready = True
        self.probes = self.foreign = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self._text = text
        self._credentials = credentials
        self._server: Any = None

    @property
    def url(self) -> str:
        return f"localhost:{self.port}" if self._credentials else f"127.0.0.1:{self.port}"

    async def start(self) -> FakeTriton:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {
            "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
                self._infer,
                service_pb2.ModelInferRequest.FromString,
                service_pb2.ModelStreamInferResponse.SerializeToString,
            ),
            "ModelReady": grpc.unary_unary_rpc_method_handler(
                self._ready, service_pb2.ModelReadyRequest.FromString, service_pb2.ModelReadyResponse.SerializeToString
            ),
        }
        handlers["ModelStatistics"] = grpc.unary_unary_rpc_method_handler(
            self._statistics,
            service_pb2.ModelStatisticsRequest.FromString,
            service_pb2.ModelStatisticsResponse.SerializeToString,
        )
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        if self._credentials is None:
            self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        else:
            self._server.add_secure_port(f"localhost:{self.port}", self._credentials)
        await self._server.start()
        return self

    async def stop(self) -> None:
        """As a killed process: every stream breaks."""
        if self._server is not None:
            await self._server.stop(None)

    async def _ready(self, _request: Any, _context: Any) -> Any:
        self.probes += 1
        return service_pb2.ModelReadyResponse(ready=self.ready)

    async def _statistics(self, _request: Any, _context: Any) -> Any:
        statistics = service_pb2.ModelStatistics(name="tensorrt_llm")
        statistics.inference_stats.success.count = len(self.requests) + self.foreign
        return service_pb2.ModelStatisticsResponse(model_stats=[statistics])

    async def _infer(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            self.requests.append(request)
            self.metadata.append(dict(context.invocation_metadata()))
            self.busy += 1
            self.most = max(self.most, self.busy)
            try:
                async for response in self._answer(request, context):
                    yield response
            finally:
                self.busy -= 1

    async def _answer(self, request: Any, context: Any) -> AsyncIterator[Any]:
        if self.dead_stub:
            yield _error(DEAD_STUB)
            return
        prompt, limit = _prompt(request)
        if prompt.startswith("!refuse"):
            yield _error("beam_width is 2, not supported")
            return
        length = min(len(prompt), limit)
        for count in range(1, length + 1):
            await self.gate.wait()
            if self.hang_after is not None and count > self.hang_after:
                await asyncio.Event().wait()
            if self.break_after is not None and count > self.break_after:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the engine process has died")
            last = count == length
            outputs = _text_outputs(prompt[:count], last, limit) if self._text else _token_outputs(prompt[count - 1])
            yield _response(outputs, last)


def _prompt(request: Any) -> tuple[str, int]:
    """The prompt, in ASCII, so that a character is a token; and the limit of the answer."""
    inputs = dict(zip((entry.name for entry in request.inputs), request.raw_input_contents, strict=True))
    if "text_input" in inputs:
        return inputs["text_input"][4:].decode(), int(np.frombuffer(inputs["sampling_param_max_tokens"], np.int32)[0])
    ids = np.frombuffer(inputs["input_ids"], np.int32)
    return TOKENIZER.decode(ids.tolist()), int(np.frombuffer(inputs["request_output_len"], np.int32)[0])


def _token_outputs(character: str) -> dict[str, Any]:
    ids = TOKENIZER.encode(character, add_special_tokens=False).ids
    return {"output_ids": np.array([[ids]], np.int32), "sequence_length": np.array([[len(ids)]], np.int32)}


def _text_outputs(text: str, last: bool, limit: int) -> dict[str, Any]:
    """As upstream: the whole text so far, reasons as text, metrics as text, no batch dimension."""
    reason = (b"length" if len(text) >= limit else b"stop") if last else b"None"
    return {
        "text_output": np.array([text.encode()], dtype=np.object_),
        "finish_reason": np.array([reason], dtype=np.object_),
        "kv_cache_reused_block": np.array([b"7"], dtype=np.object_),
        "acceptance_rate": np.array([b"0.5"], dtype=np.object_),
    }


def _response(outputs: dict[str, Any], last: bool) -> Any:
    message = service_pb2.ModelStreamInferResponse()
    for name, value in outputs.items():
        message.infer_response.outputs.add(name=name, datatype=np_to_triton_dtype(value.dtype), shape=value.shape)
        message.infer_response.raw_output_contents.append(to_bytes(value))
    message.infer_response.parameters[FINAL_PARAMETER].bool_param = last
    return message


def _error(text: str) -> Any:
    return service_pb2.ModelStreamInferResponse(error_message=text)
