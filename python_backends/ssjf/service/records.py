"""What is remembered of every ended row: one frozen record, handed to whoever observes (metrics, the journal)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from ssjf.core.errors import SchedulerError
from ssjf.service.live import LiveRow
from ssjf.service.outcome import Outcome


@dataclass(frozen=True, slots=True)
class FinishedRow:
    """One ended row. Times in seconds; None where it never got that far. `predicted_by` is proxy, prior or client.

    `arrival` is on the monotonic clock. `output_tokens` counts all `sequences`; `finish` says why a complete answer
    ended (`stop`, or `length` at max_tokens). `trace` is the client's W3C trace context.
    """

    outcome: Outcome
    request_id: str
    tenant: str
    priority_class: int
    policy: str
    prompt_tokens: int
    predicted_tokens: int
    predicted_by: str
    output_tokens: int
    queue_s: float | None
    ttft_s: float | None
    jct_s: float
    arrival: float = 0.0
    prompt: bytes = b""
    max_tokens: int = 0
    sequences: int = 1
    finish: str = "stop"
    trace: str = ""


class Recorder:
    """Counts outcomes and passes records on. Owned by the event loop; `observe` must not block."""

    def __init__(self, observe: Callable[[FinishedRow], None]):
        self._observe = observe
        self.outcomes: Counter[Outcome] = Counter()
        self.predictions: Counter[str] = Counter()
        self.output_tokens = 0
        self.engine_responses = 0
        self.policy = ""

    def failed(self, error: SchedulerError) -> Outcome:
        """Note an error at the level of a client request."""
        outcome = Outcome.of_error(error)
        self.outcomes[outcome] += 1
        return outcome

    def finished(self, row: LiveRow, now: float) -> None:
        """Note the end of a row that had been admitted at the door."""
        if row.outcome in (Outcome.FINISHED, Outcome.STOPPED):
            self.outcomes[row.outcome] += 1
        self.output_tokens += row.answer.output_tokens if row.answer is not None else 0
        record = self._record(row, now)
        if record is not None:
            self._observe(record)

    def _record(self, row: LiveRow, now: float) -> FinishedRow | None:
        if row.job is None or row.prediction is None or row.answer is None or row.outcome is None:
            return None
        arrival = row.job.arrival
        return FinishedRow(
            outcome=row.outcome,
            request_id=row.call.call.request_id,
            tenant=row.job.tenant,
            priority_class=row.job.priority_class,
            policy=self.policy,
            prompt_tokens=row.job.prompt_tokens,
            predicted_tokens=row.answer.predicted_tokens,
            predicted_by=row.prediction.source,
            output_tokens=row.answer.output_tokens,
            queue_s=row.dispatched_at - arrival if row.dispatched_at is not None else None,
            ttft_s=row.first_token_at - arrival if row.first_token_at is not None else None,
            jct_s=now - arrival,
            arrival=arrival,
            prompt=row.generation.text,
            max_tokens=row.job.max_tokens,
            sequences=row.job.sequences,
            finish=row.answer.finish_reason,
            trace=row.generation.context.get("traceparent", ""),
        )
