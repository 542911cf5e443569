"""The asyncio client."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import weakref
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .answering import OpenAnswer
from .client import CONTROL_TIMEOUT_S, DEFAULT_TIMEOUT_S, STOP_TIMEOUT_S
from .connection import TlsOptions, channel_credentials, channel_options, checked_url, metadata_pairs
from .errors import ClientError, error_from_message, error_from_rpc
from .exchange import Chunk, Exchange, Generation
from .request import GenerateRequest, as_request
from .status import Status, parse_status
from .wire import (
    Door,
    SettingValue,
    checked_door,
    control_message,
    limits_parameter,
    policy_parameters,
    read_part,
    stop_message,
)

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["AsyncClient", "AsyncStream"]


class AsyncStream(OpenAnswer, AsyncIterator[Chunk]):
    """An answer as it comes: `async for` over its chunks.

    Leaving the loop (break, exception, return), cancelling the task, `close()` and leaving an `async with` block cancel
    the request on the server. Belongs to one event loop; another task's `close()` makes the iteration raise Cancelled.
    """

    async def __aiter__(self) -> AsyncIterator[Chunk]:
        # An async generator of its own, because Python drops it the moment the loop is left; its end is then run by
        # the event loop in the next round.
        try:
            while True:
                try:
                    chunk = await self.__anext__()
                except StopAsyncIteration:
                    return
                yield chunk
        finally:
            self.close()

    async def __anext__(self) -> Chunk:
        while not self._over:
            try:
                response = await self._call.read()
                if response is grpc.aio.EOF:
                    self._over = True
                    self._exchange.end()
                    break
                chunk = self._exchange.receive(response)
            except grpc.aio.AioRpcError as error:
                self._over = True
                if self._exchange.complete:
                    break
                cancelled = self._left
                self.close()
                raise (self._exchange.cancelled() if cancelled else self._exchange.failure(error)) from error
            except asyncio.CancelledError:
                # gRPC raises this for a cancelled call as well as for a cancelled task.
                self._over = True
                cancelled = self._left and not _task_is_cancelled()
                self.close()
                if cancelled:
                    raise self._exchange.cancelled() from None
                raise
            except BaseException:
                self._over = True
                self.close()
                raise
            if chunk is not None:
                return chunk
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _task_is_cancelled() -> bool:
    task = asyncio.current_task()
    # Python 3.10 cannot tell; there, a stream closed by its own client counts as that.
    return sys.version_info >= (3, 11) and task is not None and task.cancelling() > 0


class AsyncClient:
    """The same as Client for asyncio. Belongs to the event loop it is first used in; its tasks may share it."""

    def __init__(
        self,
        url: str = "127.0.0.1:8001",
        door: Door = "scheduler",
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        tls: TlsOptions | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.url = checked_url(url)
        self.door = checked_door(door)
        self.timeout_s = timeout_s
        self._credentials = None if tls is None else channel_credentials(tls)
        self._metadata = metadata_pairs(metadata)
        self._channel: Any = None
        self._made_stub: Any = None
        self._closed = False
        self._streams: weakref.WeakSet[AsyncStream] = weakref.WeakSet()
        self._stops: set[asyncio.Task[None]] = set()

    async def generate(self, request: GenerateRequest | str, **options: Any) -> Generation:
        """The whole answer; see Client.generate. Cancelling the task cancels the request."""
        async with self._start(request, options, stream=False) as answer:
            async for _ in answer:
                pass
            return answer.result

    def stream(self, request: GenerateRequest | str, **options: Any) -> AsyncStream:
        """Sends the request and returns its answer as a stream of chunks. Call it inside the running event loop."""
        return self._start(request, options, stream=self.door != "unary")

    async def status(self, token: str | None = None) -> Status:
        """Live state of the scheduler; without the server's control token in a reduced form."""
        return parse_status(await self._control("status", token, {}))

    async def set_policy(self, name: str, token: str, settings: Mapping[str, SettingValue] | None = None) -> Status:
        """Switches the live server's policy; the `settings` that it goes by change with it, the others stay.

        `set_policy("ssjf-aging", token, {"aging_rate": 4.0})`. Returns the server's state as it answers to the switch.
        """
        return parse_status(await self._control("set_policy", token, policy_parameters(name, settings)))

    async def set_limits(self, token: str, **limits: SettingValue) -> Status:
        """Changes the live server's limits: `set_limits(token, max_inflight=8, max_inflight_tokens=None)`."""
        return parse_status(await self._control("set_limits", token, {"limits": limits_parameter(limits)}))

    async def drain(self, token: str) -> Status:
        """The live server takes no new requests from now on; waiting and running ones finish."""
        return parse_status(await self._control("drain", token, {}))

    async def resume(self, token: str) -> Status:
        """The live server takes requests again."""
        return parse_status(await self._control("resume", token, {}))

    async def stop(self, request_id: str) -> None:
        """Ends every live request with exactly this id, whoever sent it."""
        await self._answer(stop_message(request_id), STOP_TIMEOUT_S)

    async def is_ready(self, timeout_s: float = 5.0) -> bool:
        """Whether the server answers and has the door's model loaded."""
        query = service_pb2.ModelReadyRequest(name=self.door)
        stub = self._stub()
        try:
            answer = await stub.ModelReady(query, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.ready)

    async def close(self) -> None:
        """Cancels what is still running and closes the connection."""
        for stream in tuple(self._streams):
            stream.close()
        if self._stops:
            await asyncio.wait(self._stops, timeout=STOP_TIMEOUT_S)
        self._closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _stub(self) -> Any:
        """The stub; its channel is made on first use because it binds to the running event loop."""
        if self._closed:
            raise ClientError("the client is closed")
        if self._made_stub is None:
            options = channel_options()
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self.url, options=options)
            else:
                self._channel = grpc.aio.secure_channel(self.url, self._credentials, options=options)
            self._made_stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        return self._made_stub

    def _start(self, request: GenerateRequest | str, options: dict[str, Any], *, stream: bool) -> AsyncStream:
        exchange = Exchange(as_request(request, options), door=self.door, stream=stream, timeout_s=self.timeout_s)
        answer = AsyncStream(self._open(exchange.message, exchange.timeout_s), exchange, self._stop_in_background)
        self._streams.add(answer)
        return answer

    def _open(self, message: Any, timeout_s: float | None) -> Any:
        return self._stub().ModelStreamInfer(iter((message,)), timeout=timeout_s, metadata=self._metadata)

    async def _control(self, control: str, token: str | None, values: Mapping[str, str]) -> str:
        return await self._answer(control_message(control, token, values, CONTROL_TIMEOUT_S), CONTROL_TIMEOUT_S)

    async def _answer(self, message: Any, timeout_s: float) -> str:
        """The joined text of a short request's responses."""
        texts: list[str] = []
        try:
            call = self._open(message, timeout_s)
            while (response := await call.read()) is not grpc.aio.EOF:
                if response.error_message:
                    raise error_from_message(response.error_message)
                texts.append(read_part(response.infer_response).text)
        except grpc.aio.AioRpcError as error:
            raise error_from_rpc(error) from error
        return "".join(texts)

    def _stop_in_background(self, request_id: str) -> None:
        """Sends `stop` as a task of its own: the caller is leaving and should not wait for the network."""

        async def send() -> None:
            # A failure has nobody left to be told, and the request then ends by its timeout.
            with contextlib.suppress(ClientError):
                await self.stop(request_id)

        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return  # the event loop has ended, and the connection with it
        task = loop.create_task(send())
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)
