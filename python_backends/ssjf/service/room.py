"""Room at the door: requests that are being tokenized and predicted count as waiting ones.

The core refuses what does not fit its queue, but sees a request only when it is prepared. Without this check a flood
would pile up before the queue, and each refusal would cost a tokenization and a question to the proxy first: at ten
times the capacity refusals took 3 s (tests/server/test_overload.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ssjf.core.errors import QueueFull
from ssjf.core.scheduler import Scheduler
from ssjf.service.messages import Generation


@dataclass(slots=True, eq=False)
class Stay:
    """One request's place while it is prepared: so many rows, so many bytes of text."""

    room: Room
    rows: int
    bytes: int
    over: bool = False

    def leave(self) -> None:
        """The rows are prepared, or have failed. A second call does nothing."""
        if not self.over:
            self.over = True
            self.room.leave(self)


class Room:
    """Counts the rows that are being prepared, and their text. Used on the event loop only."""

    def __init__(self, core: Scheduler):
        self._core = core
        self._rows = 0
        self._bytes = 0

    def enter(self, rows: Sequence[Generation], admitted: int) -> Stay:
        """Take in rows to prepare, until their stay is over.

        `admitted`: rows that wait in the core or run. Raises QueueFull when the engine and the queue together have no
        room for these rows, or when the texts that are being prepared are more than the queue may hold.
        """
        settings, coming = self._core.settings, admitted + self._rows + len(rows)
        size = self._bytes + sum(len(row.text) for row in rows)
        # One request alone is left to the core, whose error says what does not fit.
        full = coming > settings.max_queue + settings.max_inflight or size > settings.max_queue_bytes
        if full and (admitted or self._rows):
            raise self._refusal()
        stay = Stay(self, len(rows), size - self._bytes)
        self._rows += stay.rows
        self._bytes += stay.bytes
        return stay

    def leave(self, stay: Stay) -> None:
        """Free a place; see Stay."""
        self._rows -= stay.rows
        self._bytes -= stay.bytes

    def _refusal(self) -> QueueFull:
        settings, waiting = self._core.settings, len(self._core) + self._rows
        limit = f"{settings.max_queue} requests and {settings.max_queue_bytes} bytes"
        return QueueFull(waiting, self._core.retry_after_s(waiting), limit)
