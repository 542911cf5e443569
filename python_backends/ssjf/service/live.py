"""Requests that are alive. Owned by the event loop: no other thread touches these objects."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ssjf.core.job import Job, LengthPrediction
from ssjf.service.answer import Answer
from ssjf.service.channel import Channel
from ssjf.service.engine.pool import Member
from ssjf.service.messages import Call, Generation
from ssjf.service.outcome import Outcome


@dataclass(slots=True, eq=False)
class LiveRow:
    """One row of a live call, from the door to its last token. Times are seconds (monotonic), None: not yet.

    `member`: the engine endpoint that has it. `streaming`: the engine sends it piece by piece, so that silence means
    something. `sent`: a piece of its answer is on its way to the client. `coming`: a prediction that may come while it
    waits.
    """

    call: LiveCall
    generation: Generation
    prompt_ids: NDArray[np.int32] | None = None
    prediction: LengthPrediction | None = None
    coming: asyncio.Task[LengthPrediction] | None = None
    job: Job | None = None
    answer: Answer | None = None
    task: asyncio.Task[None] | None = None
    member: Member | None = None
    streaming: bool = False
    sent: bool = False
    dispatched_at: float | None = None
    first_token_at: float | None = None
    last_progress: float = 0.0
    deadline_timer: asyncio.TimerHandle | None = None
    outcome: Outcome | None = None

    def expect_no_prediction(self) -> None:
        """One that comes now would be of no use."""
        if self.coming is not None:
            self.coming.cancel()
            self.coming = None

    def leave_engine(self) -> None:
        """As before its dispatch: the row waits again."""
        if self.deadline_timer is not None:
            self.deadline_timer.cancel()
        self.task = self.member = self.deadline_timer = self.dispatched_at = self.first_token_at = None


@dataclass(slots=True, eq=False)
class LiveCall:
    """One client request: its rows and the way back. `call_id` is ours; clients' request ids may repeat."""

    call_id: int
    call: Call
    channel: Channel
    rows: list[LiveRow] = field(default_factory=list)
    open_rows: int = 0


class LiveCalls:
    """All live calls, by our id and by the client's."""

    def __init__(self) -> None:
        self._calls: dict[int, LiveCall] = {}
        self._by_request_id: dict[str, set[int]] = {}

    def __len__(self) -> int:
        return len(self._calls)

    def add(self, live: LiveCall) -> None:
        self._calls[live.call_id] = live
        if live.call.request_id:
            self._by_request_id.setdefault(live.call.request_id, set()).add(live.call_id)

    def get(self, call_id: int) -> LiveCall | None:
        return self._calls.get(call_id)

    def remove(self, live: LiveCall) -> None:
        self._calls.pop(live.call_id, None)
        same = self._by_request_id.get(live.call.request_id)
        if same is not None:
            same.discard(live.call_id)
            if not same:
                del self._by_request_id[live.call.request_id]

    def with_request_id(self, request_id: str) -> list[LiveCall]:
        """Every live call of that client id, oldest first; ids may repeat."""
        return [self._calls[call_id] for call_id in sorted(self._by_request_id.get(request_id, ()))]

    def all(self) -> list[LiveCall]:
        return list(self._calls.values())
