"""Progress of something that takes long, on the standard error."""

from __future__ import annotations

import sys
import time

_TERMINAL_S, _LOG_S = 0.5, 10.0  # between two reports


class ProgressLine:
    """Call it with (done, total). One line on a terminal, rewritten; a new line every 10 s elsewhere."""

    def __init__(self, doing: str, things: str) -> None:
        self._doing, self._things = doing, things
        self._start = self._shown = time.monotonic()
        self._first: int | None = None

    def __call__(self, done: int, total: int) -> None:
        """Report if it is time, and always at the end; what was done before the first call does not count for speed."""
        now = time.monotonic()
        self._first = done if self._first is None else self._first
        terminal = sys.stderr.isatty()
        if done < total and now - self._shown < (_TERMINAL_S if terminal else _LOG_S):
            return
        self._shown = now
        gained = max(done - self._first, 1)
        left = (now - self._start) / gained * (total - done)
        text = f"{self._doing} {done}/{total} {self._things}, {left:.0f} s left"
        print(f"\r\x1b[K{text}" if terminal else text, end="" if terminal and done < total else "\n", file=sys.stderr)
