"""The scheduler: jobs in, decisions out. Owns every job from submit until it is finished, expired or cancelled.

Not thread-safe and without a clock: one owner calls it and passes `now` (seconds, never decreasing).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal

from ssjf.core.admission import Admission, Capacity, Running
from ssjf.core.errors import DeadlineExceeded, InvalidRequest, QueueFull
from ssjf.core.forecast import Forecast
from ssjf.core.guardrail import Guardrail
from ssjf.core.job import Job, LengthPrediction
from ssjf.core.policies.aging import SsjfAging
from ssjf.core.policies.base import Policy
from ssjf.core.policies.registry import make_policy
from ssjf.core.prior import LengthPrior
from ssjf.core.queue import WaitingQueue
from ssjf.core.settings import LIVE_LIMITS, POLICY_SETTINGS, CoreSettings, check_keys
from ssjf.core.snapshot import Counts, Limits, Snapshot

# The derived aging rate is renewed when the mean length has moved by this factor; checked every so many answers.
_RATE_DRIFT = 1.5
_RATE_CHECK_EVERY = 128


@dataclass(slots=True)
class Schedule:
    """One decision: jobs to hand to the engine now, in this order, and jobs that missed their start deadline."""

    dispatch: Sequence[Job]
    expired: Sequence[Job]


_NOTHING = Schedule([], [])  # the usual decision: never changed by anyone


class Scheduler:
    """The cycle: `submit` jobs, `schedule` after every event, `finish` what the engine ended.

    `schedule` must be called after each of submit, repredict, finish, requeue, set_limits, and at `next_event`.
    """

    def __init__(self, settings: CoreSettings):
        self.settings = settings
        self.counts = Counts()
        self.guardrail = Guardrail(settings)
        self._prior = LengthPrior(settings.prior_tokens, settings.prior_window)
        self._rate_mean = self._prior.mean()  # what the aging rate in force was derived from
        self._forecast = Forecast()
        self._admission = Admission(settings)
        self._queue = WaitingQueue(
            make_policy(settings.policy, settings),
            settings.tenant_weights,
            max_wait_s=settings.max_wait_s,
            budgeted=settings.max_inflight_tokens is not None,
        )

    # -- the life of a job ---------------------------------------------------------------------------------------

    def submit(self, job: Job, now: float) -> None:
        """Take a job into the queue.

        Raises QueueFull at the limits of requests or bytes, DeadlineExceeded if its deadline has passed or will have
        before it can start, and InvalidRequest for a priority class that does not exist, an id that is in use, or a job
        of more bytes than the queue may ever hold.
        """
        settings, queue = self.settings, self._queue
        if not 0 <= job.priority_class < settings.priority_classes:
            raise InvalidRequest("priority_class", job.priority_class, f"0 to {settings.priority_classes - 1}")
        if job.job_id in queue.jobs or job.job_id in self._admission.running:
            raise InvalidRequest("job_id", job.job_id, "an id that is not in use")
        if job.start_deadline is not None or job.end_deadline is not None:
            self._check_deadlines(job, now)
        if len(queue.jobs) >= settings.max_queue or queue.size_bytes + job.size_bytes > settings.max_queue_bytes:
            self._refuse(job)
        queue.push(job)

    def repredict(self, job_id: int, prediction: LengthPrediction, now: float) -> Job | None:
        """Put a waiting job where it would be had `prediction` come with it; its latest start, too, follows from that.

        Returns the job; None if it does not wait (any more).
        """
        job = self._queue.repredict(job_id, prediction)
        if job is not None:
            self.counts.repredicted += 1
            if job.end_deadline is not None:
                self._queue.set_start_deadline(job, self._latest_start(job, self._run_s(job)))
        return job

    def schedule(self, now: float, capacity: Capacity | None = None) -> Schedule:
        """Decide what starts now. Never exceeds slots or tokens; what it returns counts as started and as expired.

        `capacity`: what the engines can take, where that may be less than the limits (one of them is out, say).
        """
        queue, admission = self._queue, self._admission
        if not queue.jobs:
            return _NOTHING
        expired = self._expire(now) if queue.due else _NOTHING.expired
        slots, share = admission.free_slots(), 1.0
        if capacity is not None:
            slots, share = min(slots, capacity.slots), capacity.share
        if slots <= 0:
            return Schedule([], expired) if expired else _NOTHING
        dispatch: list[Job] = []
        while slots > len(dispatch) and queue.jobs:
            job = queue.take(now, admission.room(share))
            if job is None:
                break
            work = job.predicted_work + self.settings.prefill_weight * job.prompt_tokens
            queue.charge(job, work)
            admission.start(job, work, now)
            dispatch.append(job)
        self.counts.dispatched += len(dispatch)
        return Schedule(dispatch, expired)

    def progress(self, job_id: int, output_tokens: int, now: float) -> None:
        """A running job has produced `output_tokens` so far, all sequences together; may exceed its prediction.

        Raises UnknownJob if it is not running.
        """
        self._admission.grow(job_id, output_tokens, now)

    def pace_s(self) -> float:
        """Seconds a token in the engine lately, prefill included; 0 while too little is known."""
        return self._forecast.pace_s()

    def finish(self, job_id: int, output_tokens: int, now: float, *, learn: bool = True) -> None:
        """A running job has left the engine with `output_tokens`, all sequences together.

        `learn`: whether it ended by itself, so that its length says something about lengths (not so when cancelled or
        failed). Raises UnknownJob if it is not running.
        """
        running = self._admission.end(job_id)
        job = running.job
        length = output_tokens / job.sequences
        self._queue.correct(job, output_tokens + self.settings.prefill_weight * job.prompt_tokens - running.charged)
        self.counts.finished += 1
        if learn and not running.cancelled:
            running.output_tokens, running.heard = output_tokens, now
            self._learn(running, length, now)
        self._forecast.learn_pace(running)

    def cancel(self, job_id: int, now: float) -> Literal["waiting", "running"] | None:
        """The client has gone. A waiting job leaves at once; a running one keeps its slot until `finish`.

        Returns where it was; None if it is not here.
        """
        if self._queue.remove(job_id) is not None:
            self.counts.cancelled += 1
            return "waiting"
        if job_id not in self._admission:
            return None
        running = self._admission.get(job_id)
        self.counts.cancelled += not running.cancelled
        running.cancelled = True
        return "running"

    def requeue(self, job_id: int, now: float, *, tried: bool = True) -> bool:
        """The engine gave a running job up before anything of it was sent to the client.

        True: it waits again, before all others of its tenant and class. False: it was queued again once before, or is
        cancelled; it is out of the scheduler and the caller answers with an error. Either way its slot is free and it
        must not be finished. `tried`: the engine had it; a job that never reached one may come back any number of
        times. Raises UnknownJob if it is not running.
        """
        running = self._admission.end(job_id)
        job = running.job
        self._queue.correct(job, -running.charged)
        if running.cancelled or (tried and job.requeued):
            self.counts.finished += 1
            return False
        job.requeued = job.requeued or tried
        self.counts.requeued += 1
        self._queue.push_front(job)
        return True

    def next_event(self, now: float) -> float | None:
        """When `schedule` has to be called although nothing else happens: the earliest start deadline.

        Becoming overdue is no such event: whatever is admissible has been dispatched already, and an overdue job only
        goes before others at the next free slot.
        """
        return self._queue.next_deadline()

    # -- changes on a live server ----------------------------------------------------------------------------------

    def set_policy(self, name: str, now: float, /, **changes: Any) -> None:
        """Order what waits, and what will come, by another policy. Running jobs are not touched. O(n).

        `changes`: any of settings.POLICY_SETTINGS. Raises InvalidSetting and leaves everything as it was.
        """
        check_keys(changes, POLICY_SETTINGS)
        settings = replace(self.settings, policy=name, **changes)
        make_policy(name, settings)  # refuses unknown names before anything changes
        self._apply(settings)
        self._reorder()

    def set_limits(self, now: float, /, **changes: Any) -> None:
        """Change limits: any of settings.LIVE_LIMITS. Jobs that run or wait beyond a lowered limit stay.

        Raises InvalidSetting and leaves everything as it was.
        """
        check_keys(changes, LIVE_LIMITS)
        self._apply(replace(self.settings, **changes))
        if "max_wait_s" in changes:
            self._reorder()

    # -- what it knows ---------------------------------------------------------------------------------------------

    def prior_prediction(self, min_tokens: int = 1, max_tokens: int | None = None) -> LengthPrediction:
        """The length to assume for a request whose prompt could not be judged: that of recent answers."""
        return self._prior.prediction(min_tokens, max_tokens)

    def __len__(self) -> int:
        """Jobs that wait."""
        return len(self._queue)

    def snapshot(self, now: float) -> Snapshot:
        """The state now. O(tenants that wait)."""
        policy, queue = self._queue.policy, self._queue
        return Snapshot(
            policy=self.settings.policy,
            effective_policy=policy.name,
            guardrail_fallen=self.guardrail.fallen,
            guardrail_changes=self.guardrail.changes,
            tau=self.guardrail.tau,
            bias=self.guardrail.bias,
            aging_rate=policy.rate if isinstance(policy, SsjfAging) else None,
            prior_mean_tokens=self._prior.mean(),
            queue_length=len(queue),
            queue_bytes=queue.size_bytes,
            queue_lengths=queue.lengths(),
            backlog_tokens=queue.backlogs(),
            oldest_wait_s=now - queue.oldest_arrival(now),
            in_flight=len(self._admission),
            tokens_in_flight=self._admission.tokens,
            mean_service_s=self._forecast.service_s,
            **asdict(self.counts),
            promotions=queue.promotions,
            limits=Limits(**{entry.name: getattr(self.settings, entry.name) for entry in fields(Limits)}),
        )

    # -- inside ------------------------------------------------------------------------------------------------------

    def _expire(self, now: float) -> Sequence[Job]:
        expired = self._queue.expire(now)
        self.counts.expired += len(expired)
        return expired

    def _refuse(self, job: Job) -> None:
        settings, waiting = self.settings, len(self._queue)
        self.counts.rejected += 1
        if job.size_bytes > settings.max_queue_bytes:  # to come again later would not help
            raise InvalidRequest("size_bytes", job.size_bytes, f"at most max_queue_bytes {settings.max_queue_bytes}")
        limit = f"{settings.max_queue} requests and {settings.max_queue_bytes} bytes"
        raise QueueFull(waiting, self.retry_after_s(waiting), limit)

    def retry_after_s(self, waiting: int) -> float:
        """Seconds until a tenth of `waiting` jobs has left the queue, at the present pace."""
        return self._forecast.retry_after_s(waiting, max(1, len(self._admission)))

    def _check_deadlines(self, job: Job, now: float) -> None:
        """Set the job's latest start, and refuse it when that has passed, or will have before its turn can come.

        With a free slot and nobody waiting it may try, whatever is expected of it: it takes no time from others, and an
        engine that was slow once shows that it no longer is.
        """
        contended = self._queue or self._admission.free_slots() <= 0
        run_s = self._run_s(job) if contended and job.end_deadline is not None else 0.0
        due = [deadline for deadline in (job.start_deadline, job.end_deadline) if deadline is not None]
        if not due:
            return
        job.start_deadline = self._latest_start(job, run_s)
        slots = len(self._admission) + max(0, self._admission.free_slots())
        wait_s = self._forecast.wait_s(self._queue.ahead(job), max(1, slots))
        if now < job.start_deadline and now + wait_s <= job.start_deadline:
            return
        self.counts.rejected += 1
        late = now - min(due)
        if late >= 0:
            raise DeadlineExceeded(f"the deadline passed {late:.3f} s before the request was queued")
        expected = f"{wait_s:.2f} s of waiting and {run_s:.2f} s of answering"
        raise DeadlineExceeded(f"the deadline is in {-late:.2f} s, and at least {expected} are expected")

    def _latest_start(self, job: Job, run_s: float) -> float:
        """When a job with a deadline must have started, if it is to run for `run_s`."""
        start, end = job.given_start_deadline, job.end_deadline
        return min(math.inf if start is None else start, math.inf if end is None else end - run_s)

    def _run_s(self, job: Job) -> float:
        """How long the job is expected to run: predictions are corrected by their bias, useless ones are not used."""
        tokens = job.predicted_tokens
        if self.guardrail.fallen:
            tokens = job.clamp(self._prior.mean())
        elif job.prediction.source == "proxy":
            tokens = job.clamp(tokens / (self.guardrail.bias or 1.0))
        return tokens * self._forecast.pace_s()

    def _learn(self, running: Running, length: float, now: float) -> None:
        self._forecast.learn_service(now - running.started)
        prior, job = self._prior, running.job
        prior.observe(length)
        changed = job.prediction.source == "proxy" and self.guardrail.observe(job.predicted_tokens, length)
        if changed or (prior.seen % _RATE_CHECK_EVERY == 0 and self._rate_is_stale()):
            self._reorder()

    def _rate_is_stale(self) -> bool:
        if not isinstance(self._queue.policy, SsjfAging) or self.settings.aging_rate is not None:
            return False
        ratio = self._prior.mean() / self._rate_mean
        return not 1 / _RATE_DRIFT <= ratio <= _RATE_DRIFT

    def _apply(self, settings: CoreSettings) -> None:
        self.settings = settings
        self._admission.apply(settings)
        self._queue.max_wait_s = settings.max_wait_s
        self._queue.set_budgeted(settings.max_inflight_tokens is not None)

    def _reorder(self) -> None:
        """Put the policy in force that settings and guardrail ask for, with a rate from the present mean length."""
        self._rate_mean = self._prior.mean()
        self._queue.set_policy(self._effective_policy())

    def _effective_policy(self) -> Policy:
        wanted = make_policy(self.settings.policy, self.settings, self._rate_mean)
        if self.guardrail.fallen and wanted.uses_predictions:
            return make_policy("fcfs", self.settings)
        return wanted
