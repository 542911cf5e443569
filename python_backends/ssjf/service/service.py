"""The scheduler at work: requests in, rows to the dispatcher, every request to exactly one end.

Everything here runs on one event loop, which owns the core and all live requests; the sender thread, the cancellation
poller and the metrics thread get messages. `accept` is the way in, the callbacks of the other threads come in through
`loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ssjf.core.errors import SchedulerError
from ssjf.core.job import Job
from ssjf.core.scheduler import Scheduler
from ssjf.core.snapshot import Snapshot
from ssjf.service.cancellation import CancellationPoller
from ssjf.service.channel import Channel, Outbox, Responder
from ssjf.service.control import Control
from ssjf.service.dispatcher import Dispatcher
from ssjf.service.engine.base import EngineAdapter
from ssjf.service.engine.foreign import ForeignWatch
from ssjf.service.engine.pool import EnginePool
from ssjf.service.errors import InternalError, NotAccepting, RequestCancelled
from ssjf.service.intake import read_rows, wants_stop
from ssjf.service.journal import Journal
from ssjf.service.live import LiveCall, LiveCalls, LiveRow
from ssjf.service.messages import Call, TextChunk
from ssjf.service.outcome import Outcome
from ssjf.service.preparation import Preparation, PreparedRow
from ssjf.service.records import Recorder
from ssjf.service.room import Room, Stay
from ssjf.service.settings import ServiceSettings

log = logging.getLogger("ssjf.service")


@dataclass(frozen=True, slots=True)
class Parts:
    """What a Service is put together from; each part has one owner, named in its own docstring."""

    settings: ServiceSettings
    core: Scheduler
    preparation: Preparation
    adapter: EngineAdapter
    pool: EnginePool
    outbox: Outbox
    recorder: Recorder
    journal: Journal | None = None
    foreign: ForeignWatch | None = None


class Service:
    """Owner of the core and of every live request; all methods run on the event loop."""

    def __init__(self, parts: Parts, loop: asyncio.AbstractEventLoop):
        self._settings = parts.settings
        self._core = parts.core
        self._preparation = parts.preparation
        self._adapter = parts.adapter
        self._pool = parts.pool
        self._outbox = parts.outbox
        self.recorder = parts.recorder
        self.journal = parts.journal
        self._foreign = parts.foreign
        self._loop = loop
        self._room = Room(parts.core)
        self._calls = LiveCalls()
        self._call_ids = itertools.count(1)
        self._job_ids = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._priority_classes = {0}
        self.accepting = True
        self._control = Control(self, parts.core, parts.settings.control_token)
        self.poller = CancellationPoller(self._on_gone, parts.settings.cancel_poll_s)
        self.dispatcher = Dispatcher(
            parts.settings, parts.core, parts.pool, parts.preparation, parts.recorder, ends=self
        )

    # -- the way in ----------------------------------------------------------------------------------------------

    def accept(self, call: Call, responder: Responder) -> None:
        """Take one Triton request. Whatever happens, its channel is ended exactly once."""
        channel = Channel(responder, self._outbox)
        live = LiveCall(next(self._call_ids), call, channel)
        try:
            if "control" in call.parameters:
                self._answer_once(channel, self._control.handle(call.parameters))
            elif wants_stop(call):
                self._stop_requests(call)
                self._answer_once(channel, "")
            else:
                self._open(live)
        except SchedulerError as error:
            self.fail(live, error)
        except Exception:
            log.exception("a request could not be taken in")
            self.fail(live, InternalError("the scheduler could not take this request in; its log has the reason"))

    def _open(self, live: LiveCall) -> None:
        if not self.accepting:
            raise NotAccepting("the scheduler is draining and takes no new requests")
        read = read_rows(live.call, self._settings, self._core.settings.priority_classes)
        live.rows = [LiveRow(live, generation) for generation in read]
        for row in live.rows:
            self._adapter.check(row.generation)
        live.open_rows = len(live.rows)
        self._calls.add(live)
        self.poller.watch(live.call_id, live.channel)
        if all(self._preparation.is_ready(row.generation) for row in live.rows):
            self._submit(live, [self._preparation.read(row.generation) for row in live.rows])
        else:
            stay = self._room.enter([row.generation for row in live.rows], len(self.dispatcher))
            task = self._loop.create_task(self._prepare(live, stay))
            task.add_done_callback(lambda _task: stay.leave())  # a task that is cancelled early never begins
            self._keep(task)

    async def _prepare(self, live: LiveCall, stay: Stay) -> None:
        try:
            prepared = await asyncio.gather(*(self._prepare_row(row) for row in live.rows))
            stay.leave()  # from here on the core counts them
            if not live.channel.ended:
                self._submit(live, prepared)
        except SchedulerError as error:
            self.fail(live, error)
        except Exception:
            log.exception("a request could not be prepared")
            self.fail(live, InternalError("the scheduler could not prepare this request; its log has the reason"))

    async def _prepare_row(self, row: LiveRow) -> PreparedRow:
        ready = await self._preparation.make(row.generation)
        row.coming = ready.coming
        if row.call.channel.ended:  # another row may have failed it meanwhile
            row.expect_no_prediction()
        return ready

    def _submit(self, live: LiveCall, prepared: Sequence[PreparedRow]) -> None:
        now = self._loop.time()
        for row, ready in zip(live.rows, prepared, strict=True):
            self.dispatcher.submit(row, self._new_job(row, ready), now)
        self.dispatcher.pump_soon()

    def _new_job(self, row: LiveRow, ready: PreparedRow) -> Job:
        generation = row.generation
        row.prompt_ids = ready.prompt_ids
        row.prediction = ready.prediction or self._core.prior_prediction()
        self.recorder.predictions[row.prediction.source] += 1
        return Job(
            job_id=next(self._job_ids),
            arrival=row.call.call.arrival,
            prompt_tokens=len(ready.prompt_ids),
            max_tokens=generation.max_tokens,
            min_tokens=generation.min_tokens,
            prediction=row.prediction,
            sequences=generation.sequences,
            priority_class=generation.priority_class,
            tenant=generation.tenant,
            start_deadline=generation.deadline,
            end_deadline=generation.deadline if self._settings.cancel_past_deadline else None,
            expected_tokens=generation.expected_tokens,
            size_bytes=ready.prompt_ids.nbytes + len(generation.text),
        )

    # -- ends ------------------------------------------------------------------------------------------------------

    def end_row(self, row: LiveRow, outcome: Outcome) -> None:
        """The row's answer is complete (or was asked to stop): its rest goes out, the last row ends the call."""
        assert row.answer is not None
        row.outcome = outcome
        for piece in row.answer.finish():
            row.call.channel.push(piece)
        row.call.open_rows -= 1
        if row.call.open_rows == 0:
            row.call.channel.finish()
            self._forget(row.call)

    def fail(self, live: LiveCall, error: SchedulerError) -> None:
        """End a call with an error: all its rows leave the queue and the engine. The first end of a call counts."""
        if live.channel.ended:
            return
        live.channel.fail(error)
        outcome = self.recorder.failed(error)
        for row in live.rows:
            if row.outcome is None:
                row.outcome = outcome
                self.dispatcher.withdraw(row)
        self._forget(live)

    def _forget(self, live: LiveCall) -> None:
        self._calls.remove(live)
        self.poller.forget(live.call_id)

    def _answer_once(self, channel: Channel, text: str) -> None:
        channel.push(TextChunk(0, 0, (text,), 0, 0, 0, 0))
        channel.finish()

    def _stop_requests(self, call: Call) -> None:
        """`stop=true`: every live request of that id ends with what it has. Unknown ids are fine, they are over."""
        for live in self._calls.with_request_id(self._control.stop_id(call)):
            for row in live.rows:
                if row.outcome is not None:
                    continue
                if row.answer is None:  # still being tokenized: nothing to end gracefully
                    self.fail(live, RequestCancelled("stopped before it was queued"))
                    break
                self.end_row(row, Outcome.STOPPED)
                self.dispatcher.withdraw(row)

    # -- news from outside -----------------------------------------------------------------------------------------

    async def client_gone(self, live: LiveCall) -> bool:
        """Ask Triton once more, right before a dispatch."""
        answer: asyncio.Future[bool] = self._loop.create_future()
        self.poller.running(live.call_id, partial(self._tell, answer))
        return await answer

    def _tell(self, answer: asyncio.Future[bool], gone: bool) -> None:
        """The poller's thread has the answer that `client_gone` waits for."""
        self._loop.call_soon_threadsafe(_settle, answer, gone)

    def _on_gone(self, call_id: int) -> None:
        """The poller's thread found that a client has gone."""
        self._loop.call_soon_threadsafe(self._client_went, call_id)

    def _client_went(self, call_id: int) -> None:
        live = self._calls.get(call_id)
        if live is not None:
            self.fail(live, RequestCancelled("the client has gone"))

    # -- state and end ---------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds on the clock that arrivals and deadlines are given in."""
        return self._loop.time()

    def snapshot(self) -> Snapshot:
        """The core's state now."""
        return self._core.snapshot(self._loop.time())

    def seen_priority_classes(self, state: Snapshot) -> list[int]:
        """Every priority class that has ever waited, class 0 included."""
        self._priority_classes.update(state.queue_lengths)
        return sorted(self._priority_classes)

    def relay_state(self) -> dict[str, float]:
        """How the way back to the clients is doing, for `status` and the metrics."""
        counts = self._outbox.counts
        return {
            "engine_responses": self.recorder.engine_responses,
            "responses_sent": counts.responses,
            "responses_merged": counts.merged,
            "relay_lag_s": counts.lag_s,
            "relay_backlog": self._outbox.backlog(),
            **{f"requests_{outcome.value}": count for outcome, count in self.recorder.outcomes.items()},
        }

    def take_worst_lag_s(self) -> float:
        """The longest wait of a response for its sender since the last call: for the metrics alone, reading resets."""
        return self._outbox.take_worst_lag_s()

    def engine_state(self) -> list[dict[str, Any]]:
        """The engine endpoints, for `status` and the metrics."""
        foreign = self._foreign.totals() if self._foreign is not None else {}
        return [engine | {"foreign_requests": foreign.get(engine["url"], 0)} for engine in self._pool.describe()]

    @property
    def live_calls(self) -> int:
        """Client requests that have not ended."""
        return len(self._calls)

    async def shut_down(self, reason: str) -> None:
        """Answer everything that is alive with an error and let go of the engine."""
        self.accepting = False
        for live in self._calls.all():
            self.fail(live, NotAccepting(reason))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._foreign is not None:
            await self._foreign.close()
        await self.dispatcher.close()
        self._preparation.close()

    def _keep(self, task: asyncio.Task[None]) -> None:
        """The loop holds tasks weakly; this holds them until they are done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _settle(future: asyncio.Future[bool], gone: bool) -> None:
    if not future.done():
        future.set_result(gone)
