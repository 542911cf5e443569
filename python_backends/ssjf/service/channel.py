"""The way back to the clients: pieces go in on the event loop, a few sender threads bring them to Triton.

`response_sender.send` is a round trip to the server process. When pieces arrive faster than those trips can be made,
the waiting ones of a sequence are merged: the client sees fewer, longer pieces, never a growing queue.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Protocol

from ssjf.core.errors import SchedulerError
from ssjf.service.messages import TextChunk
from ssjf.service.pace import Later, Pace

log = logging.getLogger("ssjf.channel")

# A send is mostly waiting: for the server's process and for the interpreter's lock. Four waits at a time carried 256
# streams of 40 tokens/s with a longest gap of 0.36 s where one came to 0.92; eight took too much from the event loop.
_SENDERS = 4


class Responder(Protocol):
    """What a transport offers for one request. Every method blocks for a round trip."""

    def send(self, chunk: TextChunk, final: bool) -> None: ...

    def finish(self) -> None: ...

    def fail(self, error: SchedulerError) -> None: ...

    def is_cancelled(self) -> bool: ...


@dataclass(slots=True)
class RelayCounts:
    """What the senders have done so far."""

    responses: int = 0
    merged: int = 0
    lag_s: float = 0.0
    worst_lag_s: float = 0.0  # since `Outbox.take_worst_lag_s`
    broken: int = 0


class Channel:
    """One request's answers. `push`, `finish` and `fail` never block; exactly one end reaches the client.

    `_lock` guards what is pending; `_wire` serialises use of the responder, because asking a finished one whether it
    is cancelled would touch memory that Triton has released.
    """

    def __init__(self, responder: Responder, outbox: Outbox):
        self._responder = responder
        self._lane = outbox.lane()
        self._lock = threading.Lock()
        self._wire = threading.Lock()
        self._pending: dict[tuple[int, int], TextChunk] = {}
        self._queued = False
        self._since = 0.0
        self._ended = False
        self._error: SchedulerError | None = None
        self._sent_final = False
        self.sent_at = 0.0  # when something was last sent; its sender thread's own

    @property
    def ended(self) -> bool:
        """True once `finish` or `fail` was called: whatever comes later is dropped."""
        return self._ended

    def push(self, chunk: TextChunk) -> None:
        """Queue a piece; merged with a waiting one of the same sequence."""
        key = (chunk.batch_index, chunk.sequence_index)
        with self._lock:
            if self._ended:
                return
            waiting = self._pending.get(key)
            if waiting is not None:
                self._lane.counts.merged += 1
            self._pending[key] = waiting.joined(chunk) if waiting is not None else chunk
            self._wake()

    def finish(self) -> None:
        """No more pieces: the last one waiting, or an empty response, becomes the final one."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self._wake()

    def fail(self, error: SchedulerError) -> None:
        """End with an error; pieces still waiting are dropped."""
        with self._lock:
            if not self._ended:
                self._ended, self._error = True, error
                self._pending.clear()
                self._wake()

    def is_cancelled(self) -> bool:
        """Ask Triton whether the client has gone (a round trip); False while the sender is busy with this request."""
        if not self._wire.acquire(blocking=False):
            return False
        try:
            return not self._sent_final and self._responder.is_cancelled()
        finally:
            self._wire.release()

    def deliver(self) -> None:
        """Send everything that waits. Only the channel's own sender thread calls this."""
        with self._lock:
            chunks, self._pending = list(self._pending.values()), {}
            ended, error, since = self._ended, self._error, self._since
            self._queued = False
        with self._wire:
            if self._sent_final:
                return
            self._sent_final = ended
            self._send(chunks, ended, error)
        self._lane.note_sent(max(len(chunks), 1), time.monotonic() - since)

    def _send(self, chunks: list[TextChunk], ended: bool, error: SchedulerError | None) -> None:
        if error is not None:
            self._responder.fail(error)
            return
        for at, chunk in enumerate(chunks):
            self._responder.send(chunk, final=ended and at == len(chunks) - 1)
        if ended and not chunks:
            self._responder.finish()

    def _wake(self) -> None:
        if not self._queued:
            self._queued, self._since = True, time.monotonic()
            self._lane.queue.put(self)


class Outbox:
    """The sender threads, each with a queue of its channels that have something to send.

    A send is mostly waiting for the server's process, so several threads get more done than one; a channel always goes
    by the same one, which keeps its pieces in order.
    """

    def __init__(self, on_broken: Callable[[Channel], None]):
        self._lanes = [_Lane(on_broken) for _ in range(_SENDERS)]
        self._next = itertools.cycle(self._lanes)

    def lane(self) -> _Lane:
        """For a new channel."""
        return next(self._next)

    def start(self) -> None:
        for lane in self._lanes:
            lane.thread.start()

    def stop(self, timeout_s: float) -> None:
        """Send what is queued, then end the threads; waits at most `timeout_s`."""
        deadline = time.monotonic() + timeout_s
        for lane in self._lanes:
            lane.queue.put(None)
        for lane in self._lanes:
            lane.thread.join(max(0.0, deadline - time.monotonic()))

    def backlog(self) -> int:
        """Channels that wait for a sender."""
        return sum(lane.queue.qsize() for lane in self._lanes)

    @property
    def counts(self) -> RelayCounts:
        """Of all lanes together; the lag is the worst one's."""
        each = [lane.counts for lane in self._lanes]
        return RelayCounts(
            responses=sum(one.responses for one in each),
            merged=sum(one.merged for one in each),
            lag_s=max(one.lag_s for one in each),
            worst_lag_s=max(one.worst_lag_s for one in each),
            broken=sum(one.broken for one in each),
        )

    def take_worst_lag_s(self) -> float:
        """The longest wait for a sender since the last call: what a client felt, which the last one's wait hides.

        A lag that a sender notes in this very moment may be lost; the next one of a relay that lags is as long.
        """
        worst = self.counts.worst_lag_s
        for lane in self._lanes:
            lane.counts.worst_lag_s = 0.0
        return worst


class _Lane:
    """One sender thread. `counts` has one writer each: `merged` the event loop, the rest this thread.

    Only `worst_lag_s` is set back by the loop.
    """

    def __init__(self, on_broken: Callable[[Channel], None]):
        self.counts = RelayCounts()
        self.queue: SimpleQueue[Channel | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="ssjf-sender", daemon=True)
        self._on_broken = on_broken

    def note_sent(self, responses: int, lag_s: float) -> None:
        self.counts.responses += responses
        self.counts.lag_s = lag_s
        self.counts.worst_lag_s = max(self.counts.worst_lag_s, lag_s)

    def _run(self) -> None:
        pace = Pace()
        later: Later[Channel] = Later()
        while True:
            begun = time.monotonic()
            channel = self._next(later, begun)
            if channel is None:
                break
            woken = time.monotonic()
            pause = pace.pause_s - (woken - channel.sent_at)
            if pause > 0 and not channel.ended and channel.sent_at:
                later.add(woken + pause, channel)
                continue
            self._deliver(channel)
            channel.sent_at = time.monotonic()
            pace.note(idle_s=woken - begun, busy_s=channel.sent_at - woken)
        for channel in later.all():
            self._deliver(channel)

    def _next(self, later: Later[Channel], now: float) -> Channel | None:
        """A channel whose pause is over, or else the next one that asks."""
        while True:
            due = later.due(now)
            if due is not None:
                return due
            try:
                return self.queue.get(timeout=later.wait_s(now))
            except Empty:
                now = time.monotonic()

    def _deliver(self, channel: Channel) -> None:
        try:
            channel.deliver()
        except Exception as error:  # the responder's own failure: nothing more can be said to this client
            self.counts.broken += 1
            log.warning("a response could not be sent: %s", error)
            self._on_broken(channel)
