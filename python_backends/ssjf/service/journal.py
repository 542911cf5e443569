"""The journal: one JSON object a line for every ended request, for training the proxy and for the simulator.

docs/journal.md has the format. Whatever happens to the disk, serving goes on: records wait in a bounded queue for a
thread of their own, and what cannot be written is dropped and counted.
"""

from __future__ import annotations

import json
import logging
import secrets
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ssjf.service.outcome import Outcome
from ssjf.service.records import FinishedRow

log = logging.getLogger("ssjf.journal")

_RECORD_BYTES = 512  # about what a record takes besides its prompt
_BATCH = 256

DropReason = Literal["queue", "write"]


class Sink(Protocol):
    """Where lines go; used on the journal's thread.

    `write` returns how many lines it has written, from the first one on, and raises OSError when that is none.
    """

    def write(self, lines: list[bytes]) -> int: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class JournalLimits:
    """What may wait to be written, and for how many seconds a sink that failed is left alone."""

    records: int = 10_000
    bytes: int = 64 * 2**20
    retry_s: float = 1.0


class JournalCounts:
    """Since the start. Numbers only grow; read on any thread."""

    def __init__(self) -> None:
        self.written = 0
        self.dropped: Counter[DropReason] = Counter({"queue": 0, "write": 0})


class Journal:
    """`write` may be called on any thread and never blocks longer than an append; the thread owns the sink."""

    def __init__(
        self,
        sink: Sink,
        *,
        prompts: bool,
        limits: JournalLimits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.counts = JournalCounts()
        self._sink = sink
        self._limits = limits or JournalLimits()
        self._clock = clock
        self._format = LineFormat(prompts, time.time() - time.monotonic())
        self._prompts = prompts
        self._changed = threading.Condition()
        self._waiting: deque[FinishedRow] = deque()
        self._waiting_bytes = 0
        self._stopping = False
        self._failing_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="ssjf-journal", daemon=True)

    @property
    def failing(self) -> bool:
        """True while the last write failed."""
        return self._failing_since is not None

    def state(self) -> dict[str, Any]:
        """For `status`: whether it can be written, and the counts."""
        dropped = {f"dropped_{reason}": count for reason, count in self.counts.dropped.items()}
        return {"failing": self.failing, "written": self.counts.written, **dropped}

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        """Write what waits, then end the thread; waits at most `timeout_s`."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def write(self, row: FinishedRow) -> None:
        """Take a record, or drop and count it when too much waits already."""
        size = self._size(row)
        with self._changed:
            if len(self._waiting) >= self._limits.records or self._waiting_bytes + size > self._limits.bytes:
                self.counts.dropped["queue"] += 1
                return
            self._waiting.append(row)
            self._waiting_bytes += size
            self._changed.notify()

    def _size(self, row: FinishedRow) -> int:
        return _RECORD_BYTES + (len(row.prompt) if self._prompts else 0)

    def _run(self) -> None:
        while rows := self._next_batch():
            try:
                self._put([self._format.line(row) for row in rows])
            except Exception:  # a record that cannot be written down must not end the journal
                log.exception("%d journal records were lost", len(rows))
                self.counts.dropped["write"] += len(rows)
        self._sink.close()

    def _next_batch(self) -> list[FinishedRow]:
        """Records to write, once there are some; none when the journal is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._stopping)
            rows = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            self._waiting_bytes -= sum(map(self._size, rows))
        return rows

    def _put(self, lines: list[bytes]) -> None:
        now = self._clock()
        if self._failing_since is not None and now < self._failing_since + self._limits.retry_s:
            self.counts.dropped["write"] += len(lines)
            return
        try:
            written = self._sink.write(lines)
        except OSError as error:
            if self._failing_since is None:
                log.error("the journal cannot be written, records are dropped until it can: %s", error)
            self._failing_since = now
            self.counts.dropped["write"] += len(lines)
            return
        if self._failing_since is not None:
            log.info("the journal is written again; %d records were dropped", self.counts.dropped["write"])
            self._failing_since = None
        self.counts.written += written
        self.counts.dropped["write"] += len(lines) - written


class LineFormat:
    """Records as lines. Ids are unique over restarts; `clock_offset_s` turns our clock into seconds since 1970.

    The offset is taken once: a step of the wall clock would otherwise tear apart the arrivals that a replay needs.
    """

    def __init__(self, prompts: bool, clock_offset_s: float):
        self._prompts = prompts
        self._clock_offset_s = clock_offset_s
        self._session = secrets.token_hex(6)
        self._count = 0

    def line(self, row: FinishedRow) -> bytes:
        """One record, with its newline; see docs/journal.md."""
        self._count += 1
        entry: dict[str, object] = {"id": f"{self._session}-{self._count}"}
        if self._prompts and row.prompt:
            entry["prompt"] = row.prompt.decode("utf-8", "replace")
        entry |= {
            "arrival": round(self._clock_offset_s + row.arrival, 6),
            "outcome": row.outcome.value,
            "prompt_tokens": row.prompt_tokens,
            "output_tokens": round(row.output_tokens / row.sequences),
            "finish": row.finish if row.outcome is Outcome.FINISHED else None,
            "predicted_tokens": row.predicted_tokens,
            "predicted_by": row.predicted_by,
            "max_tokens": row.max_tokens,
            "sequences": row.sequences,
            "queue_s": _rounded(row.queue_s),
            "ttft_s": _rounded(row.ttft_s),
            "jct_s": _rounded(row.jct_s),
            "policy": row.policy,
            "tenant": row.tenant,
            "priority_class": row.priority_class,
            "request_id": row.request_id,
            "trace": row.trace,
        }
        return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
