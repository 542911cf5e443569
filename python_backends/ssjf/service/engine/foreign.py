"""Requests that reach an engine past the scheduler: they take slots that the scheduler believes free.

An engine's own statistics are compared with what we sent it. Triton 2.51 counts a request of a decoupled model when
its backend takes it (Python backend, measured; cancelled and failed ones included) or when it ends (the TensorRT-LLM
backend), so what is in flight may be counted or not: nothing is reported that could be ours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

_TIMEOUT_S = 2.0


class CountedEndpoint(Protocol):
    """An engine server that counts what we sent (`sent`) and what of it has not ended (`running`)."""

    url: str
    sent: int
    running: int

    async def counted_requests(self, timeout_s: float) -> int | None: ...


class ForeignRequests:
    """The comparison for one engine. `total` never counts one of ours; it may be late, or miss a few at a restart."""

    def __init__(self) -> None:
        self.total = 0
        self._surplus = 0  # what the engine counts beyond what we sent, as far as it is explained
        self._last: tuple[int, int, int] | None = None

    def observe(self, counted: int, sent: int, running: int) -> None:
        """One look at both sides. `counted` must have been read before `sent` and `running`."""
        now = (counted, sent, running)
        surplus = counted - sent
        if self._last is None or counted < self._last[0]:  # the first look, or the engine has begun anew
            self._surplus = surplus + running
        elif surplus > self._surplus:
            self.total += surplus - self._surplus
            self._surplus = surplus
        elif not running and now == self._last:  # at rest: some of ours were never counted, and will not be
            self._surplus = surplus
        self._last = now


class ForeignWatch:
    """Looks at every engine now and then. Owner of one task on the event loop."""

    def __init__(self, endpoints: Sequence[CountedEndpoint], period_s: float):
        self._period_s = period_s
        self._engines = [(endpoint, ForeignRequests()) for endpoint in endpoints]
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to look. Called on the event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def totals(self) -> Mapping[str, int]:
        """Foreign requests since the start, by the endpoint's address."""
        return {endpoint.url: foreign.total for endpoint, foreign in self._engines}

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            for endpoint, foreign in self._engines:
                counted = await endpoint.counted_requests(_TIMEOUT_S)
                if counted is not None:
                    foreign.observe(counted, endpoint.sent, endpoint.running)
            await asyncio.sleep(self._period_s)
