"""How often one stream is sent to while the sender is busy: fewer, longer pieces instead of everybody waiting longer.

A piece costs the same whether it holds one token or ten. As long as the sender has time to spare, every piece goes out
at once; the busier it is, the longer a stream that has just been served waits while its tokens are merged.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Generic, TypeVar

# A quarter of the sender's time: the rest absorbs bursts, and on a machine that computes the answers, too, every piece
# takes its time from them.
BUSY_SHARE = 0.25
# A reader at 150 ms a piece still sees text flow; 256 streams then cost at most 1,700 pieces a second.
LONGEST_PAUSE_S = 0.15
# How fast the pause follows, in seconds of pause for each second that the sender is wholly busy.
_GAIN = 0.5

ItemT = TypeVar("ItemT")


class Pace:
    """The least time between two pieces of one stream, steered so that the sender is busy `BUSY_SHARE` of its time.

    An integral controller: a pause that suffices is kept, one that does not grows until it does.
    """

    def __init__(self) -> None:
        self.pause_s = 0.0

    def note(self, idle_s: float, busy_s: float) -> None:
        """The sender waited `idle_s` and then worked `busy_s`."""
        excess_s = busy_s - BUSY_SHARE * (idle_s + busy_s)
        self.pause_s = min(LONGEST_PAUSE_S, max(0.0, self.pause_s + _GAIN * excess_s))


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
