"""Ctrl-C and SIGTERM as something to wait for."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType


class StopSignals:
    """Counts stop signals from its making on. Make it in the main thread; `wait` returns at once on a new one."""

    def __init__(self) -> None:
        self.count = 0
        self._reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._receive)

    def _receive(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    def wait(self, seconds: float) -> bool:
        """Waits so long, or until a stop signal comes; whether one has ever come."""
        if not self.count and select.select([self._reader], [], [], seconds)[0]:
            os.read(self._reader, 64)
        return self.count > 0
