"""Forwards whole requests to `scheduler` over gRPC and gathers their answers. No Triton imports here."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
from collections.abc import Mapping
from typing import Any, Protocol

import grpc
import grpc.aio
import numpy as np
from numpy.typing import NDArray
from tritonclient.grpc import service_pb2

from ssjf.service.cancellation import CancellationPoller
from ssjf.service.engine.wire import CODED_ERRORS_PARAMETER, build_request, read_outputs
from ssjf.service.intake import wants_stop
from ssjf.service.messages import Call
from unary.merge import merge_responses

log = logging.getLogger("ssjf.unary")

_STREAM_METHOD = "/inference.GRPCInferenceService/ModelStreamInfer"
_POLL_S = 0.05
_INT64_MAX = 2**63 - 1


class Reply(Protocol):
    """The way back to one client; `answer` and `fail` end the request, the first of them counts."""

    def answer(self, outputs: Mapping[str, NDArray[Any]]) -> None: ...

    def fail(self, code: str, message: str) -> None: ...

    def is_cancelled(self) -> bool: ...


class UnaryRelay:
    """An event-loop thread that holds one stream to `scheduler` for each request, and the cancellation poller.

    Replies are sent on a thread of asyncio's pool: a send is a round trip to the server process.
    """

    def __init__(self, url: str, model: str = "scheduler"):
        self._url = url
        self._model = model
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="unary-loop", daemon=True)
        self._ids = itertools.count(1)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._poller = CancellationPoller(self._on_gone, _POLL_S)
        self._channel: grpc.aio.Channel | None = None

    def start(self) -> None:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        self._poller.start()

    def accept(self, call: Call, reply: Reply) -> None:
        """Take one request; `reply` gets exactly one end. Callable on any thread."""
        self._loop.call_soon_threadsafe(self._begin, call, reply)

    def stop(self, timeout_s: float) -> None:
        """Cancel what is under way (each gets its error) and end the threads."""
        self._poller.stop(timeout_s)
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(timeout_s)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout_s)

    async def _open(self) -> None:
        options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
        self._channel = grpc.aio.insecure_channel(self._url, options=options)
        self._stream = self._channel.stream_stream(
            _STREAM_METHOD,
            request_serializer=service_pb2.ModelInferRequest.SerializeToString,
            response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
        )

    async def _close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()

    def _begin(self, call: Call, reply: Reply) -> None:
        call_id = next(self._ids)
        self._tasks[call_id] = self._loop.create_task(self._serve(call_id, call, reply))
        self._poller.watch(call_id, reply)
        self._poller.running(call_id, lambda _gone: None)

    async def _serve(self, call_id: int, call: Call, reply: Reply) -> None:
        try:
            outputs = await self._ask(call)
            await asyncio.to_thread(reply.answer, outputs)
        except asyncio.CancelledError:
            reply.fail("CANCELLED", "the client has gone, or the server is shutting down")
        except grpc.aio.AioRpcError as error:
            await asyncio.to_thread(reply.fail, "UNAVAILABLE", f"scheduler: {error.details()}")
        except _Refused as error:
            await asyncio.to_thread(reply.fail, error.code, error.text)
        except Exception as error:
            log.exception("a unary request failed")
            await asyncio.to_thread(reply.fail, "INTERNAL", f"the unary door failed: {error}")
        finally:
            self._poller.forget(call_id)
            self._tasks.pop(call_id, None)

    async def _ask(self, call: Call) -> dict[str, NDArray[Any]]:
        responses = []
        stream = self._stream(_once(self.forwarded(call)))
        try:
            async for response in stream:
                if response.error_message:
                    raise _Refused(response.error_message)
                if response.infer_response.outputs:
                    responses.append(read_outputs(response.infer_response))
        finally:
            stream.cancel()
        return merge_responses(responses, answered_rows(call))

    def forwarded(self, call: Call) -> Any:
        """The same request for `scheduler`: never streamed, since there is one answer to give."""
        tensors = dict(call.tensors)
        if "stream" in tensors:
            tensors["stream"] = np.zeros_like(tensors["stream"])
        message = build_request(self._model, call.request_id, tensors)
        for name, value in call.parameters.items():
            set_parameter(message.parameters[name], value)
        message.parameters[CODED_ERRORS_PARAMETER].bool_param = True
        if 0 < call.timeout_us <= _INT64_MAX:  # a client's -1 arrives as 2**64 - 1: as good as none
            message.parameters["timeout"].int64_param = call.timeout_us
        return message

    def _on_gone(self, call_id: int) -> None:
        """The poller's thread found that a client has gone."""
        self._loop.call_soon_threadsafe(self._cancel, call_id)

    def _cancel(self, call_id: int) -> None:
        task = self._tasks.get(call_id)
        if task is not None:
            task.cancel()


class _Refused(Exception):
    """`scheduler` answered with an error on the stream: a Triton code, a colon, and the text."""

    def __init__(self, message: str):
        super().__init__(message)
        code, separator, text = message.partition(": ")
        known = separator and code.isupper()
        self.code, self.text = (code, text) if known else ("INTERNAL", message)


def answered_rows(call: Call) -> int:
    """Rows of the answer: a control request and a `stop` are answered once, however many rows they came with."""
    if "control" in call.parameters or wants_stop(call):
        return 1
    return int(next(iter(call.tensors.values())).shape[0])


def set_parameter(target: Any, value: Any) -> None:
    """Put a request parameter into its message; a whole number that has no place there goes as text."""
    if isinstance(value, bool):
        target.bool_param = value
    elif isinstance(value, int) and -_INT64_MAX - 1 <= value <= _INT64_MAX:
        target.int64_param = value
    elif isinstance(value, float):
        target.double_param = value
    else:
        target.string_param = str(value)


async def _once(message: Any) -> Any:
    yield message
