"""One request's way from sent to answered, without any I/O: sync and async streams feed it and ask it what to raise."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from .errors import Cancelled, ClientError, ConnectionLost, error_from_message, error_from_rpc
from .request import GenerateRequest
from .wire import Door, Part, generate_message, read_part

__all__ = ["Chunk", "Exchange", "FinishReason", "Generation"]

FinishReason = Literal["stop", "length"]
"""`length`: `max_tokens` were generated. `stop`: the model or a stop word ended the answer."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a streamed answer. All texts of a stream, joined, are the answer."""

    text: str
    index: int
    tokens: int | None
    """Output tokens in this piece, as far as the server counts them."""
    elapsed_s: float
    """Seconds since the request was sent, on the client's clock."""


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer, or as much of it as has come. Numbers are None where the server sent none."""

    text: str
    request_id: str
    finish_reason: FinishReason | None
    """None while the answer is not complete, or when the server does not count tokens."""
    predicted_tokens: int | None
    """Output length that the scheduler expected."""
    queue_time_s: float | None
    """Seconds between arrival and hand-over to the engine, on the server's clock."""
    input_tokens: int | None
    output_tokens: int | None
    time_to_first_token_s: float | None
    """Seconds until the first response, on the client's clock; for an unstreamed answer the whole time."""
    elapsed_s: float
    """Seconds until the last response so far, on the client's clock."""
    complete: bool


class Exchange:
    """State of one request. Owned by its stream; not thread-safe.

    `complete`: the server's last response has come. `live`: the server may still be working on it, so that leaving now
    means cancelling.
    """

    def __init__(
        self,
        request: GenerateRequest,
        *,
        door: Door,
        stream: bool,
        timeout_s: float | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.request_id = request.request_id or uuid.uuid4().hex
        self.timeout_s = request.timeout_s if request.timeout_s is not None else timeout_s
        self.message = generate_message(
            request, door=door, request_id=self.request_id, stream=stream, timeout_s=self.timeout_s
        )
        self.door = door
        self.complete = False
        self.live = True
        self._max_tokens = request.max_tokens
        self._clock = clock
        self._sent = clock()
        self._first: float | None = None
        self._last = 0.0
        self._texts: list[str] = []
        self._tokens: int | None = None
        self._newest: Part | None = None

    def receive(self, response: Any) -> Chunk | None:
        """Takes one `ModelStreamInferResponse`; returns its text, or None when it only carries flags.

        Raises the request's error when the response reports one.
        """
        if response.error_message:
            self.live = False
            raise self.named(error_from_message(response.error_message))
        part = read_part(response.infer_response)
        if part.final:
            self.complete, self.live = True, False
        if part.empty:
            return None
        self._last = self._clock() - self._sent
        self._first = self._last if self._first is None else self._first
        self._texts.append(part.text)
        if part.output_tokens is not None:
            self._tokens = (self._tokens or 0) + part.output_tokens
        self._newest = part
        return Chunk(part.text, len(self._texts) - 1, part.output_tokens, self._last)

    def end(self) -> None:
        """The server closed the stream. Raises ConnectionLost unless the answer was complete."""
        if not self.complete:
            raise self.named(ConnectionLost("the server closed the stream before the answer was complete"))

    def failure(self, error: Any) -> ClientError:
        """The error for a failed call."""
        return self.named(error_from_rpc(error))

    def cancelled(self) -> ClientError:
        """The error for a call that this client cancelled."""
        return self.named(Cancelled("the request was cancelled by its client"))

    def named(self, error: ClientError) -> ClientError:
        """The error with this request's id on it."""
        error.request_id = self.request_id
        return error

    def result(self) -> Generation:
        """What has come so far."""
        newest = self._newest
        finish: FinishReason | None = None
        if self.complete and self._tokens is not None:
            finish = "length" if self._tokens >= self._max_tokens else "stop"
        return Generation(
            text="".join(self._texts),
            request_id=self.request_id,
            finish_reason=finish,
            predicted_tokens=newest.predicted_tokens if newest else None,
            queue_time_s=newest.queue_time_s if newest else None,
            input_tokens=newest.input_tokens if newest else None,
            output_tokens=self._tokens,
            time_to_first_token_s=self._first,
            elapsed_s=self._last,
            complete=self.complete,
        )
