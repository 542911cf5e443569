"""A lean asynchronous client for benchmarks: raw protobuf, one gRPC stream a request, a time stamp a response."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from ssjf.service.engine.wire import WANT_FINAL_PARAMETER, build_request, is_final, read_outputs

_SERVICE = "/inference.GRPCInferenceService/"


@dataclass(slots=True)
class Timeline:
    """One request as its client saw it. Times in seconds (perf_counter); `tokens` as counted by the server.

    `responses`: those with tensors. `finals`: those marked as the last, with tensors or without; one, if all is well.
    """

    sent: float
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    responses: int = 0
    finals: int = 0
    longest_gap: float = 0.0
    outputs: list[dict[str, NDArray[Any]]] = field(default_factory=list)

    @property
    def ttft(self) -> float:
        return self.first - self.sent

    @property
    def jct(self) -> float:
        return self.last - self.sent


class StreamClient:
    """Requests to one server; make and use it on one event loop."""

    def __init__(self, url: str):
        self._channel = grpc.aio.insecure_channel(url)
        self._stream = self._channel.stream_stream(
            f"{_SERVICE}ModelStreamInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )
        self._infer = self._channel.unary_unary(
            f"{_SERVICE}ModelInfer",
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelInferResponse.FromString,
        )
        self._config = self._channel.unary_unary(
            f"{_SERVICE}ModelConfig",
            request_serializer=service_pb2.ModelConfigRequest.SerializeToString,
            response_deserializer=service_pb2.ModelConfigResponse.FromString,
        )

    async def infer(self, model: str, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One unary request; all outputs."""
        return read_outputs(await self._infer(build_request(model, "", tensors)))

    async def model_config(self, model: str) -> Any:
        """What Triton says of a model, a protobuf ModelConfig. Raises grpc.aio.AioRpcError where it has none."""
        return (await self._config(service_pb2.ModelConfigRequest(name=model))).config

    async def stream(
        self, model: str, tensors: Mapping[str, NDArray[Any]], parameters: Mapping[str, Any] | None = None
    ) -> Timeline:
        """One decoupled request to its end. Raises RuntimeError with the server's text when it ends in an error."""
        message = build_request(model, "", tensors)
        message.parameters[WANT_FINAL_PARAMETER].bool_param = True
        for name, value in (parameters or {}).items():
            message.parameters[name].string_param = str(value)
        timeline = Timeline(time.perf_counter())
        async for response in self._stream(_once(message)):
            if response.error_message:
                raise RuntimeError(response.error_message)
            self._note(timeline, response.infer_response)
        return timeline

    def _note(self, timeline: Timeline, response: Any) -> None:
        now = time.perf_counter()
        final = is_final(response)
        timeline.finals += final
        if response.outputs:
            outputs = read_outputs(response)
            timeline.outputs.append(outputs)
            timeline.responses += 1
            if timeline.first:
                timeline.longest_gap = max(timeline.longest_gap, now - timeline.last)
            else:
                timeline.first = now
            timeline.last = now
            if "output_ids" in outputs:
                timeline.tokens += int(outputs["output_ids"].shape[-1])
            else:
                timeline.tokens += int(outputs["num_output_tokens"].reshape(-1)[0])
        elif final:
            timeline.last = timeline.last or now

    async def close(self) -> None:
        await self._channel.close()


def text_request(text: str, max_tokens: int, **more: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Tensors of one streamed request to `ensemble` or `scheduler`."""
    return {
        "text_input": np.array([[text.encode()]], dtype=np.object_),
        "max_tokens": np.array([[max_tokens]], dtype=np.int32),
        "stream": np.array([[True]]),
        **more,
    }


def engine_request(input_ids: NDArray[np.int32], max_tokens: int, **more: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Tensors of one streamed request to `tensorrt_llm`; `input_ids` is [1, n]."""
    return {
        "input_ids": input_ids,
        "input_lengths": np.array([[input_ids.shape[1]]], dtype=np.int32),
        "request_output_len": np.array([[max_tokens]], dtype=np.int32),
        "streaming": np.array([[True]]),
        **more,
    }


async def _once(message: Any) -> AsyncIterator[Any]:
    yield message
