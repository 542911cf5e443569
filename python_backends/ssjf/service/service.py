"""The scheduler at work: requests in, jobs through the core, engine streams out, answers back.

Everything here runs on one event loop, which owns the core and all live requests; the sender thread, the cancellation
poller and the metrics thread get messages. `accept` is the way in, the callbacks of the other threads come in through
`loop.call_soon_threadsafe`.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ssjf.core.errors import DeadlineExceeded, SchedulerError
from ssjf.core.job import Job
from ssjf.core.scheduler import Scheduler
from ssjf.core.snapshot import Snapshot
from ssjf.service.answer import Answer
from ssjf.service.cancellation import CancellationPoller
from ssjf.service.channel import Channel, Outbox, Responder
from ssjf.service.control import Control
from ssjf.service.engine.base import EngineAdapter, EngineError
from ssjf.service.engine.foreign import ForeignWatch
from ssjf.service.engine.pool import EnginePool, Member, State
from ssjf.service.errors import EngineFailed, EngineUnavailable, InternalError, NotAccepting, RequestCancelled
from ssjf.service.intake import read_rows, wants_stop
from ssjf.service.journal import Journal
from ssjf.service.live import LiveCall, LiveCalls, LiveRow
from ssjf.service.messages import Call, TextChunk
from ssjf.service.outcome import Outcome
from ssjf.service.preparation import Preparation, PreparedRow
from ssjf.service.records import Recorder
from ssjf.service.settings import ServiceSettings

log = logging.getLogger("ssjf.service")

_WATCH_PERIOD_S = 1.0


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
        self._pool.on_room = self.pump_soon
        self._outbox = parts.outbox
        self.recorder = parts.recorder
        self.journal = parts.journal
        self._foreign = parts.foreign
        self._loop = loop
        self._calls = LiveCalls()
        self._rows: dict[int, LiveRow] = {}
        self._call_ids = itertools.count(1)
        self._job_ids = itertools.count(1)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pump_due = False
        self._priority_classes = {0}
        self.accepting = True
        self._control = Control(self, parts.core, parts.settings.control_token)
        self.poller = CancellationPoller(self._on_gone, parts.settings.cancel_poll_s)
        self._watch = loop.call_later(_WATCH_PERIOD_S, self._watch_engine)

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
            self._fail(live, error)
        except Exception:
            log.exception("a request could not be taken in")
            self._fail(live, InternalError("the scheduler could not take this request in; its log has the reason"))

    def _open(self, live: LiveCall) -> None:
        if not self.accepting:
            raise NotAccepting("the scheduler is draining and takes no new requests")
        live.rows = [LiveRow(live, generation) for generation in read_rows(live.call, self._settings)]
        for row in live.rows:
            self._adapter.check(row.generation)
        live.open_rows = len(live.rows)
        self._calls.add(live)
        self.poller.watch(live.call_id, live.channel)
        if all(self._preparation.is_ready(row.generation) for row in live.rows):
            self._submit(live, [self._preparation.read(row.generation) for row in live.rows])
        else:
            self._keep(self._loop.create_task(self._prepare(live)))

    async def _prepare(self, live: LiveCall) -> None:
        try:
            prepared = await asyncio.gather(*(self._preparation.make(row.generation) for row in live.rows))
            if not live.channel.ended:
                self._submit(live, prepared)
        except SchedulerError as error:
            self._fail(live, error)
        except Exception:
            log.exception("a request could not be prepared")
            self._fail(live, InternalError("the scheduler could not prepare this request; its log has the reason"))

    def _submit(self, live: LiveCall, prepared: Sequence[PreparedRow]) -> None:
        now = self._loop.time()
        for row, ready in zip(live.rows, prepared, strict=True):
            row.job = self._new_job(row, ready, now)
            self._core.submit(row.job, now)
            self._rows[row.job.job_id] = row
        self._pump()

    def _new_job(self, row: LiveRow, ready: PreparedRow, now: float) -> Job:
        generation = row.generation
        row.prompt_ids = ready.prompt_ids
        row.prediction = ready.prediction or self._core.prior_prediction()
        job = Job(
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
            expected_tokens=generation.expected_tokens,
            size_bytes=ready.prompt_ids.nbytes + len(generation.text),
        )
        self.recorder.predictions[row.prediction.source] += 1
        row.answer = self._new_answer(row, job)
        return job

    def _new_answer(self, row: LiveRow, job: Job) -> Answer:
        answer = Answer(row.generation, self._preparation.tokenizer, job.prompt_tokens)
        answer.predicted_tokens = round(job.predicted_tokens)
        return answer

    # -- dispatch --------------------------------------------------------------------------------------------------

    def pump_soon(self) -> None:
        """Let the core decide again, once, after the events that are being handled now."""
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        now = self._loop.time()
        self.recorder.policy = self._core.settings.policy
        plan = self._core.schedule(now, self._pool.capacity(self._core.settings))
        for job in plan.expired:
            self._fail(
                self._rows[job.job_id].call, DeadlineExceeded("its deadline passed before an engine slot was free")
            )
        for job in plan.dispatch:
            self._start(self._rows[job.job_id], now)
        self._set_timer(self._core.next_event(now))

    def _set_timer(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._pump) if when is not None else None

    def _start(self, row: LiveRow, now: float) -> None:
        assert row.answer is not None
        row.dispatched_at = row.last_progress = now
        row.answer.queue_time_us = round((now - row.call.call.arrival) * 1e6)
        row.member = self._pool.take()
        row.task = self._loop.create_task(self._run(row, row.member))
        # Not in `_run`'s finally: a task cancelled before its first step never enters it, and the slot would be lost.
        row.task.add_done_callback(partial(self._left_engine, row, row.member))
        if row.generation.deadline is not None and self._settings.cancel_past_deadline:
            row.deadline_timer = self._loop.call_at(row.generation.deadline, self._pass_deadline, row)

    async def _run(self, row: LiveRow, member: Member) -> None:
        try:
            if await self._client_gone(row.call):
                self._fail(row.call, RequestCancelled("the client has gone"))
                return
            await self._relay(row, member)
            self._pool.worked(member)
            self._end_row(row, Outcome.FINISHED)
        except EngineError as error:
            self._engine_failed(row, member, error)
        except Exception:
            log.exception("a running request failed")
            self._fail(row.call, InternalError("the scheduler failed while this request ran; its log has the reason"))

    async def _relay(self, row: LiveRow, member: Member) -> None:
        generation, answer, job, prompt_ids = row.generation, row.answer, row.job, row.prompt_ids
        assert answer is not None
        assert job is not None
        assert prompt_ids is not None
        streaming = generation.stream or (bool(generation.stop_words) and generation.beams == 1)
        request = self._preparation.engine_request(str(uuid.uuid4()), generation, prompt_ids, streaming)
        chunks = member.endpoint.generate(request)
        try:
            async for chunk in chunks:
                row.last_progress = self._loop.time()
                if row.first_token_at is None:
                    row.first_token_at = row.last_progress
                if member.state is not State.UP:
                    self._pool.worked(member)
                piece = answer.take(chunk)
                if piece is not None:
                    row.sent = True
                    row.call.channel.push(piece)
                self._core.progress(job.job_id, answer.output_tokens, row.last_progress)
                if answer.stopped:
                    return
        finally:
            await chunks.aclose()

    def _engine_failed(self, row: LiveRow, member: Member, error: EngineError) -> None:
        """The call ends with the engine's error, unless the engine is at fault and the row can be tried once more."""
        if not error.connection:
            self._pool.worked(member)
        elif row.dispatched_at is not None:
            self._pool.failed(member, str(error), row.dispatched_at)
            if self._queue_again(row, tried=error.sent):
                return
        self._fail(row.call, EngineFailed(str(error)))

    def _queue_again(self, row: LiveRow, tried: bool) -> bool:
        """Put a row that its client has seen nothing of back to the front of the queue; False if it may not.

        An engine may fail it once; failures to reach one at all (`tried` False) don't count.
        """
        assert row.job is not None
        if row.outcome is not None or row.sent or (tried and row.job.requeued):
            return False
        requeued = self._core.requeue(row.job.job_id, self._loop.time(), tried=tried)
        assert requeued, "neither queued again before nor cancelled"
        row.leave_engine()
        row.answer = self._new_answer(row, row.job)
        self.pump_soon()
        return True

    def _left_engine(self, row: LiveRow, member: Member, task: asyncio.Task[None]) -> None:
        """A row's task is over, however it ended: its slot is free."""
        self._pool.release(member)
        if row.task is not task:  # the row was queued again; this try is not its end
            self.pump_soon()
            return
        assert row.job is not None
        assert row.answer is not None
        if row.deadline_timer is not None:
            row.deadline_timer.cancel()
        now = self._loop.time()
        self._core.finish(row.job.job_id, row.answer.output_tokens, now, learn=row.outcome is Outcome.FINISHED)
        self._rows.pop(row.job.job_id, None)
        self.recorder.finished(row, now)
        self.pump_soon()

    # -- ends ------------------------------------------------------------------------------------------------------

    def _end_row(self, row: LiveRow, outcome: Outcome) -> None:
        """The row's answer is complete (or was asked to stop): its rest goes out, the last row ends the call."""
        assert row.answer is not None
        row.outcome = outcome
        for piece in row.answer.finish():
            row.call.channel.push(piece)
        row.call.open_rows -= 1
        if row.call.open_rows == 0:
            row.call.channel.finish()
            self._forget(row.call)

    def _fail(self, live: LiveCall, error: SchedulerError) -> None:
        """End a call with an error: all its rows leave the queue and the engine."""
        live.channel.fail(error)
        outcome = self.recorder.failed(error)
        for row in live.rows:
            if row.outcome is None:
                row.outcome = outcome
                self._withdraw(row)
        self._forget(live)

    def _withdraw(self, row: LiveRow) -> None:
        if row.task is not None:
            if row.task is not asyncio.current_task(self._loop):
                row.task.cancel()
            return
        now = self._loop.time()
        if row.job is not None and self._rows.pop(row.job.job_id, None) is not None:
            self._core.cancel(row.job.job_id, now)
        self.recorder.finished(row, now)
        self.pump_soon()

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
                    self._fail(live, RequestCancelled("stopped before it was queued"))
                    break
                self._end_row(row, Outcome.STOPPED)
                self._withdraw(row)

    # -- news from outside -----------------------------------------------------------------------------------------

    async def _client_gone(self, live: LiveCall) -> bool:
        answer: asyncio.Future[bool] = self._loop.create_future()
        self.poller.running(live.call_id, partial(self._tell, answer))
        return await answer

    def _tell(self, answer: asyncio.Future[bool], gone: bool) -> None:
        """The poller's thread has the answer that `_client_gone` waits for."""
        self._loop.call_soon_threadsafe(_settle, answer, gone)

    def _on_gone(self, call_id: int) -> None:
        """The poller's thread found that a client has gone."""
        self._loop.call_soon_threadsafe(self._client_went, call_id)

    def _client_went(self, call_id: int) -> None:
        live = self._calls.get(call_id)
        if live is not None:
            self._fail(live, RequestCancelled("the client has gone"))

    def _pass_deadline(self, row: LiveRow) -> None:
        if row.outcome is None:
            self._fail(row.call, DeadlineExceeded("its deadline passed while it ran"))

    def _watch_engine(self) -> None:
        """A dead engine process sends neither tokens nor an end: silence is the only sign (DESIGN, trap 4)."""
        limit = self._settings.engine_stall_s
        silent_since = self._loop.time() - limit
        for row in list(self._rows.values()):
            if row.task is not None and row.outcome is None and row.last_progress < silent_since:
                self._give_up_engine(row, row.task, f"the engine sent nothing for {limit:g} s")
        self._give_up_waiting()
        self._watch = self._loop.call_later(_WATCH_PERIOD_S, self._watch_engine)

    def _give_up_engine(self, row: LiveRow, task: asyncio.Task[None], reason: str) -> None:
        if row.member is not None and row.dispatched_at is not None:
            self._pool.failed(row.member, reason, row.dispatched_at)
        if self._queue_again(row, tried=True):
            task.cancel()
        else:
            self._fail(row.call, EngineFailed(reason))

    def _give_up_waiting(self) -> None:
        """While no engine serves, jobs wait for one to come back; not for ever."""
        down_since = self._pool.down_since()
        if down_since is None:
            return
        limit, now = self._settings.engine_wait_s, self._loop.time()
        for row in list(self._rows.values()):
            if row.task is None and row.outcome is None and now - max(down_since, row.call.call.arrival) > limit:
                reason = f"no engine could be reached for {limit:g} s; the last failure: {self._pool.last_reason()}"
                self._fail(row.call, EngineUnavailable(reason))

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
            "responses_sent": counts.responses,
            "responses_merged": counts.merged,
            "relay_lag_s": counts.lag_s,
            "relay_backlog": self._outbox.backlog(),
            **{f"requests_{outcome.value}": count for outcome, count in self.recorder.outcomes.items()},
        }

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
        self._watch.cancel()
        for live in self._calls.all():
            self._fail(live, NotAccepting(reason))
        tasks = [row.task for row in self._rows.values() if row.task is not None] + list(self._tasks)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._set_timer(None)
        if self._foreign is not None:
            await self._foreign.close()
        await self._pool.close()
        self._preparation.close()

    def _keep(self, task: asyncio.Task[None]) -> None:
        """The loop holds tasks weakly; this holds them until they are done."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _settle(future: asyncio.Future[bool], gone: bool) -> None:
    if not future.done():
        future.set_result(gone)
