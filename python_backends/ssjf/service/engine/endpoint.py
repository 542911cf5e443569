"""One engine server: a gRPC channel and a stream for each running job."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2

from ssjf.service.engine.base import EngineAdapter, EngineError
from ssjf.service.engine.wire import is_final
from ssjf.service.messages import EngineChunk, EngineRequest

_STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"

# Requests may carry prompt tables. Keepalive notices a peer that vanished without closing (a lost node); pings
# more often than every 300 s make Triton end every stream with GOAWAY. `engine_stall_s` is the faster watch.
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
)
_UNREACHABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class EngineEndpoint:
    """Streams of one engine server. Used on the event loop only."""

    def __init__(self, url: str, adapter: EngineAdapter):
        self.url = url
        self._adapter = adapter
        self._channel = grpc.aio.insecure_channel(url, options=CHANNEL_OPTIONS)
        self._stream = self._channel.stream_stream(
            _STREAM_METHOD,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """New tokens as the engine sends them. Leaving the iterator closes the stream, which frees the engine's slot.

        A stream of its own for each job, because closing one is the cancellation that every Triton engine understands.
        Raises EngineError when the engine refuses, fails, or ends the stream before its final response.
        """
        message = self._adapter.request_message(request)
        call = self._stream(_once(message))
        complete = False
        try:
            async for response in call:  # to the end of the stream: cancelling a stream that is closing helps nobody
                if response.error_message:
                    raise EngineError(response.error_message)
                chunk = self._adapter.read_chunk(response.infer_response)
                if chunk is not None:
                    yield chunk
                complete = complete or is_final(response.infer_response)
            if not complete:
                raise EngineError("the engine closed the stream before its final response", connection=True)
        except grpc.aio.AioRpcError as error:
            raise EngineError(str(error.details()), connection=error.code() in _UNREACHABLE) from None
        finally:
            call.cancel()  # without effect on a stream that has ended

    async def close(self) -> None:
        await self._channel.close()


async def _once(message: Any) -> AsyncIterator[Any]:
    yield message
