"""A machine whose speed changes while it runs."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import pairwise

from ssjf_tools.simulate.engine import Engine


class Clock:
    """Between seconds on the wall and seconds of an engine that keeps to its service model.

    `since`: when a new pace begins, in seconds on the wall, ascending, the first 0. `factors`: as many, each how long a
    second of the engine takes from then on (2: half as fast as the model says). The last goes on for ever.
    """

    def __init__(self, since: Sequence[float], factors: Sequence[float]):
        if not since or len(since) != len(factors) or since[0] != 0 or not all(factor > 0 for factor in factors):
            raise ValueError(f"a clock needs a factor above 0 for each of its times from 0 on: {since}, {factors}")
        self.factors = list(factors)
        self._wall = list(since)
        self._engine = [0.0]
        for (begin, end), factor in zip(pairwise(since), factors, strict=False):
            self._engine.append(self._engine[-1] + (end - begin) / factor)

    def engine_time(self, wall: float) -> float:
        """How far the engine has come by then."""
        place = max(0, bisect_right(self._wall, wall) - 1)
        return self._engine[place] + (wall - self._wall[place]) / self.factors[place]

    def wall_time(self, engine: float) -> float:
        """When it has come so far; inf never."""
        place = max(0, bisect_right(self._engine, engine) - 1)
        return self._wall[place] + (engine - self._engine[place]) * self.factors[place]


class PacedEngine(Engine):
    """An engine on a clock of its own: everything in it takes longer while the machine is slow."""

    def __init__(self, engine: Engine, clock: Clock):
        self._inner = engine
        self._clock = clock

    def start(self, requests: Sequence[int], now: float) -> None:
        self._inner.start(requests, self._clock.engine_time(now))

    def next_event(self) -> float:
        return self._clock.wall_time(self._inner.next_event())

    def advance(self) -> int | None:
        return self._inner.advance()

    def progress(self, now: float) -> Iterator[tuple[int, int]]:
        return self._inner.progress(self._clock.engine_time(now))
