"""The desk: one thread that owns every response sender, the ledger and the way to the inference process.

Everything reaches it as an event in one inbox: requests from `execute`, deltas and deaths from the supervisor. It takes
all events that are there, then sends what they add up to; so when sends are slower than steps, tokens of one request
merge into one response instead of queueing. Between sends it polls every open request for cancellation.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from typing import Protocol

from openvino_llm.errors import EngineError, EngineUnavailable, InvalidInput
from openvino_llm.ledger import Ledger, Outgoing
from openvino_llm.messages import Cancel, Progress, Start
from openvino_llm.request import EngineRequest
from openvino_llm.responses import RowChunk
from openvino_llm.supervisor import Down, Up

log = logging.getLogger(__name__)

# In Triton's own words for a model that serves nobody, so that a scheduler takes this engine out until it is back.
_NOT_SERVING = "the inference process is not at ready state and is being started again"


class Client(Protocol):
    """Whoever waits for an answer: a Triton response sender. Called from the desk's thread only."""

    def send(self, chunk: RowChunk, final: bool) -> None: ...

    def finish(self) -> None:
        """The final flag without an answer."""

    def fail(self, error: EngineError) -> None:
        """The final flag with an error."""

    def is_cancelled(self) -> bool:
        """Whether the client has gone."""


@dataclass(frozen=True, slots=True)
class Submit:
    """A checked request."""

    client: Client
    request: EngineRequest


@dataclass(frozen=True, slots=True)
class Reject:
    """A request that was found faulty before it got here."""

    client: Client
    error: EngineError


@dataclass(frozen=True, slots=True)
class Stop:
    """`stop=true`: end the live request with this id; `client` gets an empty answer."""

    client: Client
    request_id: str


@dataclass(frozen=True, slots=True)
class Close:
    """No more events: answer everything that is open with an error and end."""


Event = Submit | Reject | Stop | Up | Progress | Down | Close


class Desk:
    """See the module's docstring. `post` may be called from any thread; all else happens in the desk's own."""

    def __init__(self, cancel_poll_s: float):
        self._inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._poll_s = cancel_poll_s
        self._next_poll = 0.0
        self._ledger: Ledger[Client] = Ledger()
        self._connection: Connection | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="engine-desk", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def post(self, event: Event) -> None:
        """Leave an event."""
        self._inbox.put(event)

    def close(self) -> None:
        """Answer what is open with an error and wait for the thread."""
        self.post(Close())
        self._thread.join()

    def _run(self) -> None:
        while not self._closing:
            for event in self._events():
                try:
                    self._handle(event)
                except Exception:
                    log.exception("engine desk failed on %s", type(event).__name__)
            self._send_all(self._ledger.flush())
            self._poll_cancellations()
        self._fail_all(EngineUnavailable("the engine is shutting down"))

    def _events(self) -> list[Event]:
        """All events that are there; waits for one, no longer than until the next poll for cancellations."""
        wait = max(0.0, self._next_poll - time.monotonic()) if self._ledger.clients else None
        events: list[Event] = []
        try:
            events.append(self._inbox.get(timeout=wait))
            while True:
                events.append(self._inbox.get_nowait())
        except queue.Empty:
            return events

    def _handle(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._send_all([failed for delta in event.deltas if (failed := self._ledger.apply(delta)) is not None])
        elif isinstance(event, Submit):
            self._open(event)
        elif isinstance(event, Reject):
            _fail(event.client, event.error)
        elif isinstance(event, Stop):
            self._stop(event)
        elif isinstance(event, Up):
            self._connection = event.connection
        elif isinstance(event, Down):
            self._connection = None
            self._fail_all(EngineUnavailable(f"{_NOT_SERVING}: it was lost ({event.reason})"))
        else:
            self._closing = True

    def _open(self, event: Submit) -> None:
        if self._connection is None:
            _fail(event.client, EngineUnavailable(_NOT_SERVING))
            return
        try:
            starts = self._ledger.open(event.client, event.request)
        except InvalidInput as error:
            _fail(event.client, error)
            return
        for start in starts:
            self._tell(start)

    def _stop(self, event: Stop) -> None:
        target = self._ledger.client_of(event.request_id)
        if target is not None:
            keys, answers = self._ledger.end(target)
            self._tell(Cancel(tuple(keys)))
            self._send_all(answers)
        _answer(event.client, event.client.finish)

    def _tell(self, message: Start | Cancel) -> None:
        if self._connection is not None:
            try:
                self._connection.send(message)
            except OSError:  # it just died: Down follows and fails all that is open
                log.warning("the inference process is gone")

    def _poll_cancellations(self) -> None:
        now = time.monotonic()
        if now < self._next_poll:
            return
        self._next_poll = now + self._poll_s
        for client in self._ledger.clients:
            if client.is_cancelled():
                self._tell(Cancel(tuple(self._ledger.close(client))))
                _answer(client, client.finish)

    def _send_all(self, answers: list[Outgoing[Client]]) -> None:
        gone: set[Client] = set()
        for answer in answers:
            client = answer.client
            if answer.chunk is None:
                _fail(client, EngineError(answer.error))
            elif client not in gone and not _answer(client, partial(client.send, answer.chunk, answer.final)):
                gone.add(client)
        for client in gone.intersection(self._ledger.clients):
            self._tell(Cancel(tuple(self._ledger.close(client))))

    def _fail_all(self, error: EngineError) -> None:
        for client in self._ledger.clients:
            self._ledger.close(client)
            _fail(client, error)


def _answer(client: Client, send: Callable[[], None]) -> bool:
    """Whether it could be sent. A client that cannot be answered is ended, or Triton would wait for it for good."""
    try:
        send()
    except Exception:
        log.exception("an answer could not be sent")
        with suppress(Exception):
            client.finish()
        return False
    return True


def _fail(client: Client, error: EngineError) -> None:
    _answer(client, partial(client.fail, error))
