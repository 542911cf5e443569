"""Several engine servers behind one queue: where the next job goes, which servers are out, and how they come back.

`max_inflight` and `over_dispatch` are the slots of all endpoints together, shared out evenly unless `engine_slots`
says how many each one has. An endpoint that fails is out; the others keep their own slots and their share of the KV
budget, so losing one never overloads the rest.

An endpoint that is out is probed with growing pauses. When it answers, it is on trial: one job at a time, until that
job brings a token. A probe alone is not believed, because Triton calls a model ready whose process has died.
"""

from __future__ import annotations

import asyncio
import enum
import itertools
import logging
import math
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ssjf.core.admission import Capacity
from ssjf.core.settings import CoreSettings
from ssjf.service.messages import EngineChunk, EngineRequest

log = logging.getLogger("ssjf.engine")

_PROBE_TIMEOUT_S = 2.0


class Endpoint(Protocol):
    """One engine server (see EngineEndpoint)."""

    url: str

    def generate(self, request: EngineRequest) -> AsyncGenerator[EngineChunk, None]: ...

    async def is_ready(self, timeout_s: float) -> bool: ...

    async def close(self) -> None: ...


class State(enum.Enum):
    """Whether an endpoint gets jobs: all it has slots for, one at a time, or none."""

    UP = "up"
    TRIAL = "trial"
    OUT = "out"


@dataclass(slots=True, eq=False)
class Member:
    """One endpoint of the pool.

    `since`: when it came into its state. `returned`: when it last came back; jobs from before say nothing about it now.
    `down_since`: since when it has not been up. `stale`: jobs from before that it had when it came back on trial.
    `reason`: why it was last taken out.
    """

    endpoint: Endpoint
    since: float
    returned: float
    pause_s: float
    state: State = State.UP
    down_since: float | None = None
    in_flight: int = 0
    stale: int = 0
    taken_at: int = 0
    failures: int = 0
    reason: str = ""
    probe: asyncio.Task[None] | None = None

    def free(self, slots: int) -> int:
        """Jobs that it may still be given when each endpoint has `slots`. Asked of every endpoint at every dispatch."""
        if self.state is State.UP:
            return max(0, slots - self.in_flight)
        return max(0, min(slots, self.stale + 1) - self.in_flight) if self.state is State.TRIAL else 0


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """`slots`: of each endpoint; None: an even share of max_inflight. Pauses between probes, in seconds."""

    slots: int | None = None
    first_pause_s: float = 0.25
    longest_pause_s: float = 10.0


class EnginePool:
    """Owner of the endpoints. Used on the event loop only.

    `capacity` before a decision of the core, then `take` for each job it dispatched, `release` when the job has left.
    """

    def __init__(self, endpoints: Sequence[Endpoint], settings: PoolSettings, now: Callable[[], float]):
        self._settings = settings
        self._now = now
        self._members = [Member(endpoint, now(), now(), settings.first_pause_s) for endpoint in endpoints]
        self._takes = itertools.count(1)
        self._slots = 0
        self._closed = False
        # Called when an endpoint has come back: there is room again.
        self.on_room: Callable[[], None] = lambda: None

    def capacity(self, limits: CoreSettings) -> Capacity:
        """What the endpoints can take now under the core's present limits."""
        count = len(self._members)
        if self._settings.slots is None:
            self._slots = math.ceil((limits.max_inflight + limits.over_dispatch) / count)
        else:
            self._slots = self._settings.slots + math.ceil(limits.over_dispatch / count)
        serving = sum(member.state is not State.OUT for member in self._members)
        return Capacity(sum(member.free(self._slots) for member in self._members), serving / count)

    def take(self) -> Member:
        """The endpoint with the most free slots, one of which is now used; among equals the one used least lately."""
        member = max(self._members, key=lambda each: (each.free(self._slots), -each.taken_at))
        assert member.free(self._slots) > 0, "the core was given the pool's capacity"
        member.in_flight += 1
        member.taken_at = next(self._takes)
        return member

    def release(self, member: Member) -> None:
        """A job has left its endpoint, however it ended."""
        member.in_flight -= 1

    def worked(self, member: Member) -> None:
        """An endpoint answered a job: one on trial is well. (One that is out first has to pass a probe.)"""
        if member.state is State.TRIAL:
            self._enter(member, State.UP)
            member.down_since = None
            member.pause_s = self._settings.first_pause_s
            log.info("engine %s serves again", member.endpoint.url)
            self.on_room()

    def failed(self, member: Member, reason: str, started: float) -> None:
        """Take an endpoint out until a probe finds it serving, since it failed a job that it was given at `started`.

        Its other jobs show by themselves how they fare.
        """
        if member.state is State.OUT or self._closed or started < member.returned:
            return
        if member.state is State.TRIAL:
            member.pause_s = min(2 * member.pause_s, self._settings.longest_pause_s)
        self._enter(member, State.OUT)
        member.failures += 1
        member.reason = reason
        member.down_since = self._now() if member.down_since is None else member.down_since
        log.warning("engine %s is out: %s", member.endpoint.url, reason)
        member.probe = asyncio.get_running_loop().create_task(self._probe(member))

    def down_since(self) -> float | None:
        """Since when no endpoint has been up (one on trial is not); None while one is."""
        downs = [member.down_since for member in self._members if member.down_since is not None]
        return max(downs) if len(downs) == len(self._members) else None

    def last_reason(self) -> str:
        """Why the endpoint that changed last was taken out."""
        return max(self._members, key=lambda member: member.since).reason

    def members(self) -> tuple[Member, ...]:
        """Every endpoint, in the order of the configuration; for reading."""
        return tuple(self._members)

    def describe(self) -> list[dict[str, Any]]:
        """Every endpoint for `status`."""
        now = self._now()
        return [
            {
                "url": member.endpoint.url,
                "state": member.state.value,
                "since_s": round(now - member.since, 3),
                "in_flight": member.in_flight,
                "free_slots": member.free(self._slots),
                "failures": member.failures,
                "last_failure": member.reason,
            }
            for member in self._members
        ]

    async def close(self) -> None:
        self._closed = True
        probes = [member.probe for member in self._members if member.probe is not None]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for member in self._members:
            await member.endpoint.close()

    async def _probe(self, member: Member) -> None:
        while True:
            await asyncio.sleep(member.pause_s)
            if await member.endpoint.is_ready(_PROBE_TIMEOUT_S):
                break
            member.pause_s = min(2 * member.pause_s, self._settings.longest_pause_s)
        self._enter(member, State.TRIAL)
        member.returned, member.stale = member.since, member.in_flight
        log.info("engine %s answers and gets one job on trial", member.endpoint.url)
        self.on_room()

    def _enter(self, member: Member, state: State) -> None:
        member.state, member.since = state, self._now()
