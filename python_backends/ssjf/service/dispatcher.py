"""From the core's decisions to running engine streams and back: who starts, what arrives, what a failure means."""

from __future__ import annotations

import asyncio
import logging
import uuid
from functools import partial
from typing import Protocol

from ssjf.core.errors import DeadlineExceeded, SchedulerError
from ssjf.core.job import Job, LengthPrediction
from ssjf.core.scheduler import Scheduler
from ssjf.service.answer import Answer
from ssjf.service.bounds import checked
from ssjf.service.engine.base import EngineError
from ssjf.service.engine.pool import EnginePool, Member, State
from ssjf.service.errors import EngineFailed, EngineUnavailable, InternalError, RequestCancelled
from ssjf.service.live import LiveCall, LiveRow
from ssjf.service.outcome import Outcome
from ssjf.service.preparation import Preparation
from ssjf.service.records import Recorder
from ssjf.service.settings import ServiceSettings

log = logging.getLogger("ssjf.dispatcher")

_WATCH_PERIOD_S = 1.0
# How much longer than at the engine's usual pace an answer that comes as a whole may take before it is given up.
_PATIENCE = 2.0
_SLOW_PACE_S = 0.1  # seconds a token, while the usual pace is not known


class Ends(Protocol):
    """How rows and calls end: the service's side of the dispatcher."""

    def fail(self, live: LiveCall, error: SchedulerError) -> None: ...

    def end_row(self, row: LiveRow, outcome: Outcome) -> None: ...

    async def client_gone(self, live: LiveCall) -> bool: ...


class Dispatcher:
    """Owner of the rows that wait or run, and of the use of core and pool for them. Event loop only."""

    def __init__(
        self,
        settings: ServiceSettings,
        core: Scheduler,
        pool: EnginePool,
        preparation: Preparation,
        recorder: Recorder,
        ends: Ends,
    ):
        self._settings = settings
        self._core = core
        self._pool = pool
        self._pool.on_room = self.pump_soon
        self._preparation = preparation
        # Not the number of entries: ids of added tokens may leave gaps.
        self._vocabulary = max(preparation.tokenizer.get_vocab().values()) + 1
        self._recorder = recorder
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        self._rows: dict[int, LiveRow] = {}
        self._given_up: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._pump_due = False
        self._watch = self._loop.call_later(_WATCH_PERIOD_S, self._watch_engine)

    def __len__(self) -> int:
        """Rows that wait or run."""
        return len(self._rows)

    def submit(self, row: LiveRow, job: Job, now: float) -> None:
        """Give a prepared row to the core. Raises QueueFull, DeadlineExceeded or InvalidRequest, and keeps nothing."""
        row.job = job
        row.answer = self._new_answer(row, job)
        self._core.submit(job, now)
        self._rows[job.job_id] = row
        if row.coming is not None:
            row.coming.add_done_callback(partial(self._predicted, row))

    def pump_soon(self) -> None:
        """Let the core decide again, once, after the events that are being handled now."""
        if not self._pump_due:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        now = self._loop.time()
        self._recorder.policy = self._core.settings.policy
        plan = self._core.schedule(now, self._pool.capacity(self._core.settings))
        for job in plan.expired:
            row = self._rows.get(job.job_id)
            if row is not None:  # else the call has ended with another row of it
                self._ends.fail(row.call, DeadlineExceeded("no engine slot was free in time for its deadline"))
        for job in plan.dispatch:
            row = self._rows.get(job.job_id)
            if row is not None:
                self._start(row, now)
            else:  # likewise; its end has asked for another decision, which finds the slot free
                self._core.finish(job.job_id, 0, now, learn=False)
        self._set_timer(self._core.next_event(now))

    def _predicted(self, row: LiveRow, coming: asyncio.Task[LengthPrediction]) -> None:
        """A late prediction has come: a row that still waits is ordered by it."""
        if row.coming is not coming or coming.cancelled() or coming.exception() is not None:
            return
        row.coming = None
        assert row.job is not None
        assert row.answer is not None
        job = self._core.repredict(row.job.job_id, coming.result(), self._loop.time())
        if job is not None:
            row.prediction = job.prediction
            row.answer.predicted_tokens = round(job.predicted_tokens)
            self.pump_soon()

    def withdraw(self, row: LiveRow) -> None:
        """Take a row that has its outcome out of queue or engine, wherever it is."""
        row.expect_no_prediction()
        if row.task is not None:
            if row.task is not asyncio.current_task(self._loop):
                row.task.cancel()
            return
        now = self._loop.time()
        if row.job is not None and self._rows.pop(row.job.job_id, None) is not None:
            self._core.cancel(row.job.job_id, now)
        self._recorder.finished(row, now)
        self.pump_soon()

    async def close(self) -> None:
        """Wait for what still runs (it has been cancelled) and let go of the engines."""
        self._watch.cancel()
        running = [row.task for row in self._rows.values() if row.task is not None]
        await asyncio.gather(*running, *self._given_up, return_exceptions=True)
        self._set_timer(None)
        await self._pool.close()

    def _set_timer(self, when: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self._pump) if when is not None else None

    def _start(self, row: LiveRow, now: float) -> None:
        assert row.answer is not None
        row.expect_no_prediction()
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
            if await self._ends.client_gone(row.call):
                self._ends.fail(row.call, RequestCancelled("the client has gone"))
                return
            await self._relay(row, member)
            self._pool.worked(member)
            self._ends.end_row(row, Outcome.FINISHED)
        except EngineError as error:
            self._engine_failed(row, member, error)
        except Exception:
            log.exception("a running request failed")
            self._ends.fail(
                row.call, InternalError("the scheduler failed while this request ran; its log has the reason")
            )

    async def _relay(self, row: LiveRow, member: Member) -> None:
        generation, answer, job, prompt_ids = row.generation, row.answer, row.job, row.prompt_ids
        assert answer is not None
        assert job is not None
        assert prompt_ids is not None
        row.streaming = generation.stream or (bool(generation.stop_words) and generation.beams == 1)
        request = self._preparation.engine_request(str(uuid.uuid4()), generation, prompt_ids, row.streaming)
        chunks = member.endpoint.generate(request)
        try:
            async for chunk in chunks:
                self._recorder.engine_responses += 1
                row.last_progress = self._loop.time()
                if row.first_token_at is None and row.streaming:
                    row.first_token_at = row.last_progress
                if member.state is not State.UP:
                    self._pool.worked(member)
                room = generation.max_tokens - (answer.output_tokens if generation.sequences == 1 else 0)
                within = checked(chunk, room, self._vocabulary)
                piece = answer.take(within)
                if piece is not None:
                    row.sent = True
                    row.call.channel.push(piece)
                self._core.progress(job.job_id, answer.output_tokens, row.last_progress)
                if answer.stopped or within is not chunk:
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
        self._ends.fail(row.call, EngineFailed(str(error)))

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
        self._recorder.finished(row, now)
        self.pump_soon()

    def _pass_deadline(self, row: LiveRow) -> None:
        if row.outcome is None:
            self._ends.fail(row.call, DeadlineExceeded("its deadline passed while it ran"))

    def _watch_engine(self) -> None:
        """A dead engine process sends neither tokens nor an end: silence is the only sign (DESIGN, trap 4)."""
        now, limit, pace = self._loop.time(), self._settings.engine_stall_s, self._core.pace_s()
        for row in list(self._rows.values()):
            if row.task is None or row.outcome is not None:
                continue
            allowed = limit + _unheard_s(row, pace)
            if now - row.last_progress > allowed:
                self._give_up_engine(row, row.task, f"the engine sent nothing for {allowed:g} s")
            elif not row.streaming:
                self._assume_progress(row, now, pace)
        self._give_up_waiting()
        self._watch = self._loop.call_later(_WATCH_PERIOD_S, self._watch_engine)

    def _assume_progress(self, row: LiveRow, now: float, pace: float) -> None:
        """Tokens that an answer of which nothing is heard has by now, at the usual pace: they fill the KV cache."""
        assert row.job is not None
        assert row.dispatched_at is not None
        tokens = int((now - row.dispatched_at) / pace) if pace else 0
        if 0 < tokens < row.generation.max_tokens:
            self._core.progress(row.job.job_id, tokens * row.job.sequences, now)

    def _give_up_engine(self, row: LiveRow, task: asyncio.Task[None], reason: str) -> None:
        if row.member is not None and row.dispatched_at is not None:
            self._pool.failed(row.member, reason, row.dispatched_at)
        if self._queue_again(row, tried=True):
            task.cancel()
            self._given_up.add(task)  # the row has let go of it; `close` still waits for it
            task.add_done_callback(self._given_up.discard)
        else:
            self._ends.fail(row.call, EngineFailed(reason))

    def _give_up_waiting(self) -> None:
        """While no engine serves, jobs wait for one to come back; not for ever."""
        down_since = self._pool.down_since()
        if down_since is None:
            return
        limit, now = self._settings.engine_wait_s, self._loop.time()
        for row in list(self._rows.values()):
            if row.task is None and row.outcome is None and now - max(down_since, row.call.call.arrival) > limit:
                reason = f"no engine could be reached for {limit:g} s; the last failure: {self._pool.last_reason()}"
                self._ends.fail(row.call, EngineUnavailable(reason))

    def _new_answer(self, row: LiveRow, job: Job) -> Answer:
        answer = Answer(row.generation, self._preparation.tokenizer, job.prompt_tokens)
        answer.predicted_tokens = round(job.predicted_tokens)
        return answer


def _unheard_s(row: LiveRow, pace: float) -> float:
    """How long nothing may be heard of an engine that is well: until the end, of an answer that comes as a whole."""
    return 0.0 if row.streaming else _PATIENCE * row.generation.max_tokens * (pace or _SLOW_PACE_S)
