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
_READY_METHOD = "/inference.GRPCInferenceService/ModelReady"
_STATISTICS_METHOD = "/inference.GRPCInferenceService/ModelStatistics"

# Requests may carry prompt tables. Keepalive notices a peer that vanished without closing (a lost node); pings
# more often than every 300 s make Triton end every stream with GOAWAY. `engine_stall_s` is the faster watch.
CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 330_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # An engine that comes back is to be found at the next probe, not after gRPC's own two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)
_UNREACHABLE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_TRACE_HEADER = "traceparent"

# gRPC's words for a call that failed before there was a connection to write it to.
_NO_CONNECTION = ("failed to connect to all addresses", "DNS resolution failed")

# Triton's words (2.51) for an engine that cannot serve anybody: its process died, its model is loading or gone. They
# come as an error of one request, but that request is not at fault.
_NOT_SERVING = ("is not healthy", "is not ready", "is not at ready state", "Request for unknown model")


class EngineEndpoint:
    """Streams of one engine server. Used on the event loop only.

    `sent` counts the requests that were sent, `running` those whose streams have not ended.
    """

    def __init__(self, url: str, adapter: EngineAdapter, credentials: grpc.ChannelCredentials | None = None):
        self.url = url
        self.sent = self.running = 0
        self._adapter = adapter
        self._channel = _open_channel(url, credentials)
        # Statistics have a connection of their own: one that is asked for while the engine's models still load fails,
        # and gRPC would then hold back the first job, too.
        self._side_channel = _open_channel(url, credentials, ("grpc.use_local_subchannel_pool", 1))
        self._model_ready = self._channel.unary_unary(
            _READY_METHOD,
            request_serializer=service_pb2.ModelReadyRequest.SerializeToString,
            response_deserializer=service_pb2.ModelReadyResponse.FromString,
        )
        self._statistics = self._side_channel.unary_unary(
            _STATISTICS_METHOD,
            request_serializer=service_pb2.ModelStatisticsRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStatisticsResponse.FromString,
        )
        self._stream = self._channel.stream_stream(
            _STREAM_METHOD,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    async def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]:
        """New tokens as the engine sends them. Leaving the iterator closes the stream, which frees the engine's slot.

        A stream of its own for each job, because closing one is the cancellation that every Triton engine understands.
        A trace context goes along as gRPC metadata, too, which is where Triton's own tracing looks for it. Raises
        EngineError when the engine refuses, fails, or ends the stream before its final response.
        """
        message = self._adapter.request_message(request)
        trace = request.context.get(_TRACE_HEADER)
        call = self._stream(_once(message), metadata=((_TRACE_HEADER, trace),) if trace else None)
        complete = False
        self.sent += 1
        self.running += 1
        try:
            async for response in call:  # to the end of the stream: cancelling a stream that is closing helps nobody
                if response.error_message:
                    raise _refusal(response.error_message)
                chunk = self._adapter.read_chunk(response.infer_response)
                if chunk is not None:
                    yield chunk
                complete = complete or is_final(response.infer_response)
            if not complete:
                raise EngineError("the engine closed the stream before its final response", connection=True)
        except grpc.aio.AioRpcError as error:
            raise _broken(error.code(), str(error.details())) from None
        finally:
            self.running -= 1
            call.cancel()  # without effect on a stream that has ended

    async def is_ready(self, timeout_s: float) -> bool:
        """True when the server answers within `timeout_s` and says that the model can serve."""
        try:
            answer = await self._model_ready(
                service_pb2.ModelReadyRequest(name=self._adapter.model), timeout=timeout_s, wait_for_ready=True
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def counted_requests(self, timeout_s: float) -> int | None:
        """Requests, whoever sent them, that the server counts for the model since it was loaded; None: no answer."""
        request = service_pb2.ModelStatisticsRequest(name=self._adapter.model)
        try:
            answer = await self._statistics(request, timeout=timeout_s)
        except grpc.aio.AioRpcError:
            return None
        parts = (version.inference_stats for version in answer.model_stats)
        return sum(int(part.success.count + part.fail.count) for part in parts)

    async def close(self) -> None:
        await self._channel.close()
        await self._side_channel.close()


def _open_channel(url: str, credentials: grpc.ChannelCredentials | None, *options: tuple[str, int]) -> grpc.aio.Channel:
    if credentials is None:
        return grpc.aio.insecure_channel(url, options=(*CHANNEL_OPTIONS, *options))
    return grpc.aio.secure_channel(url, credentials, options=(*CHANNEL_OPTIONS, *options))


def _broken(code: grpc.StatusCode, details: str) -> EngineError:
    unsent = code is grpc.StatusCode.UNAVAILABLE and details.startswith(_NO_CONNECTION)
    return EngineError(details, connection=code in _UNREACHABLE, sent=not unsent)


def _refusal(message: str) -> EngineError:
    return EngineError(message, connection=any(words in message for words in _NOT_SERVING))


async def _once(message: Any) -> AsyncIterator[Any]:
    yield message
