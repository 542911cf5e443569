"""The blocking client."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from .answering import OpenAnswer
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

__all__ = ["DEFAULT_TIMEOUT_S", "Client", "Stream"]

DEFAULT_TIMEOUT_S: Final = 600.0
CONTROL_TIMEOUT_S: Final = 10.0
STOP_TIMEOUT_S: Final = 2.0

# Each request is a ModelStreamInfer call of its own, made on tritonclient's generated stub. tritonclient's
# InferenceServerClient keeps one such call per client object and can only cancel the whole call, so that leaving one
# answer would cancel all the others; with one call per request, cancelling touches nothing else, and threads may share
# a Client freely. The calls share one HTTP/2 connection either way.


class Stream(OpenAnswer, Iterator[Chunk]):
    """An answer as it comes: iterate over its chunks.

    Leaving a `for` loop over it (break, exception, return) cancels the request on the server, and so do `close()`,
    leaving a `with` block, and dropping the last reference. `next()` takes single chunks and cancels nothing. One
    thread iterates; `close()` may be called from any thread and makes the iteration raise Cancelled.
    """

    def __iter__(self) -> Iterator[Chunk]:  # noqa: PYI034 - see below
        # A generator of its own, because Python drops it the moment the loop is left, while the Stream may live on.
        try:
            while True:
                try:
                    chunk = self.__next__()
                except StopIteration:
                    return
                yield chunk
        finally:
            self.close()

    def __next__(self) -> Chunk:
        while not self._over:
            try:
                response = next(self._call, None)
                if response is None:
                    self._over = True
                    self._exchange.end()
                    break
                chunk = self._exchange.receive(response)
            except grpc.RpcError as error:
                self._over = True
                if self._exchange.complete:
                    break
                cancelled = self._left
                self.close()
                raise (self._exchange.cancelled() if cancelled else self._exchange.failure(error)) from error
            except BaseException:  # KeyboardInterrupt while waiting, too, must not leave the server working
                self._over = True
                self.close()
                raise
            if chunk is not None:
                return chunk
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Client:
    """A connection to the scheduler's Triton. Threads may share it.

    url: host:port of Triton's gRPC endpoint. door: the model that takes the requests; `scheduler` sees a client leave,
    so that a cancelled request frees its place at once (behind `ensemble` this library sends a `stop` to the same
    effect). timeout_s: limit for requests that set none; None waits for ever. metadata: headers of every call.
    """

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
        self._metadata = metadata_pairs(metadata)
        if tls is None:
            self._channel = grpc.insecure_channel(url, options=channel_options())
        else:
            self._channel = grpc.secure_channel(url, channel_credentials(tls), options=channel_options())
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        self._closed = False
        # Guards the two sets, touched by whichever thread opens or leaves a stream. Re-entrant, because the garbage
        # collector may drop a stream while this thread holds it.
        self._lock = threading.RLock()
        self._streams: weakref.WeakSet[Stream] = weakref.WeakSet()
        self._stops: set[threading.Thread] = set()

    def generate(self, request: GenerateRequest | str, **options: Any) -> Generation:
        """The whole answer. `options` are fields of GenerateRequest: `generate("Why?", max_tokens=20)`.

        Raises a ClientError; KeyboardInterrupt or any other exception while waiting cancels the request.
        """
        with self._start(request, options, stream=False) as answer:
            for _ in answer:
                pass
            return answer.result

    def stream(self, request: GenerateRequest | str, **options: Any) -> Stream:
        """Sends the request and returns its answer as a stream of chunks; see Stream for how to leave it."""
        return self._start(request, options, stream=self.door != "unary")

    def status(self, token: str | None = None) -> Status:
        """Live state of the scheduler; without the server's control token in a reduced form."""
        return parse_status(self._control("status", token, {}))

    def set_policy(self, name: str, token: str, settings: Mapping[str, SettingValue] | None = None) -> Status:
        """Switches the live server's policy; the `settings` that it goes by change with it, the others stay.

        `set_policy("ssjf-aging", token, {"aging_rate": 4.0})`. Returns the server's state as it answers to the switch.
        """
        return parse_status(self._control("set_policy", token, policy_parameters(name, settings)))

    def set_limits(self, token: str, **limits: SettingValue) -> Status:
        """Changes the live server's limits: `set_limits(token, max_inflight=8, max_inflight_tokens=None)`."""
        return parse_status(self._control("set_limits", token, {"limits": limits_parameter(limits)}))

    def drain(self, token: str) -> Status:
        """The live server takes no new requests from now on; waiting and running ones finish."""
        return parse_status(self._control("drain", token, {}))

    def resume(self, token: str) -> Status:
        """The live server takes requests again."""
        return parse_status(self._control("resume", token, {}))

    def stop(self, request_id: str) -> None:
        """Ends every live request with exactly this id, whoever sent it."""
        self._answer(stop_message(request_id), STOP_TIMEOUT_S)

    def is_ready(self, timeout_s: float = 5.0) -> bool:
        """Whether the server answers and has the door's model loaded."""
        query = service_pb2.ModelReadyRequest(name=self.door)
        self._check_open()
        try:
            return bool(self._stub.ModelReady(query, timeout=timeout_s, metadata=self._metadata).ready)
        except grpc.RpcError:
            return False

    def close(self) -> None:
        """Cancels what is still running and closes the connection."""
        with self._lock:
            streams = tuple(self._streams)
        for stream in streams:
            stream.close()
        with self._lock:
            stops = tuple(self._stops)
        for thread in stops:
            thread.join(STOP_TIMEOUT_S)
        self._closed = True
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, request: GenerateRequest | str, options: dict[str, Any], *, stream: bool) -> Stream:
        exchange = Exchange(as_request(request, options), door=self.door, stream=stream, timeout_s=self.timeout_s)
        answer = Stream(self._open(exchange.message, exchange.timeout_s), exchange, self._stop_in_background)
        with self._lock:
            self._streams.add(answer)
        return answer

    def _check_open(self) -> None:
        if self._closed:
            raise ClientError("the client is closed")

    def _open(self, message: Any, timeout_s: float | None) -> Any:
        self._check_open()
        return self._stub.ModelStreamInfer(iter((message,)), timeout=timeout_s, metadata=self._metadata)

    def _control(self, control: str, token: str | None, values: Mapping[str, str]) -> str:
        return self._answer(control_message(control, token, values, CONTROL_TIMEOUT_S), CONTROL_TIMEOUT_S)

    def _answer(self, message: Any, timeout_s: float) -> str:
        """The joined text of a short request's responses."""
        texts: list[str] = []
        try:
            for response in self._open(message, timeout_s):
                if response.error_message:
                    raise error_from_message(response.error_message)
                texts.append(read_part(response.infer_response).text)
        except grpc.RpcError as error:
            raise error_from_rpc(error) from error
        return "".join(texts)

    def _stop_in_background(self, request_id: str) -> None:
        """Sends `stop` from a thread of its own: the caller is leaving and should not wait for the network."""

        def send() -> None:
            # A failure has nobody left to be told, and the request then ends by its timeout.
            with contextlib.suppress(ClientError):
                self.stop(request_id)
            with self._lock:
                self._stops.discard(thread)

        if sys.is_finalizing():
            return  # a stream dropped by the interpreter's end: threads cannot start any more
        thread = threading.Thread(target=send, name=f"ssjf-stop-{request_id}", daemon=True)
        with self._lock:
            self._stops.add(thread)
        thread.start()
