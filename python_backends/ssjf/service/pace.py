"""How often one stream is sent to while the sender is busy: fewer, longer pieces instead of everybody waiting longer.

A piece costs the same whether it holds one token or ten. As long as the sender has time to spare, every piece goes out
at once; when it is busy most of the time, a stream that has just been served waits and its tokens are merged meanwhile.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

BUSY_SHARE = 0.5
BUSY_PAUSE_S = 0.05
# How fast the busy share follows, in seconds of the sender's time.
_MEMORY_S = 0.1

ItemT = TypeVar("ItemT")


class Pace:
    """The sender's busy share, and the least time between two pieces of one stream that follows from it."""

    def __init__(self) -> None:
        self.busy_share = 0.0

    def note(self, idle_s: float, busy_s: float) -> None:
        """The sender waited `idle_s` and then worked `busy_s`."""
        span = idle_s + busy_s
        if span > 0:
            weight = min(1.0, span / _MEMORY_S)
            self.busy_share += weight * (busy_s / span - self.busy_share)

    def pause_s(self) -> float:
        """Seconds between two pieces of one stream; 0 while there is time to spare. The first never waits."""
        return BUSY_PAUSE_S if self.busy_share > BUSY_SHARE else 0.0


class Later(Generic[ItemT]):
    """Things that are due at a time of their own."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, ItemT]] = []
        self._numbers = itertools.count()

    def add(self, when: float, item: ItemT) -> None:
        heapq.heappush(self._heap, (when, next(self._numbers), item))

    def due(self, now: float) -> ItemT | None:
        """The first thing whose time has come, taken out; None if there is none."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None

    def wait_s(self, now: float) -> float | None:
        """Seconds until the next one is due; None when there is none."""
        return max(0.0, self._heap[0][0] - now) if self._heap else None

    def all(self) -> list[ItemT]:
        """Everything that is left, earliest first."""
        return [item for _, _, item in sorted(self._heap)]
