"""Noticing that a client has gone: Triton is asked, one request at a time, from one thread.

Each question is a round trip to the server process, so running requests are asked every tick and waiting ones in
rotation; right before a job is dispatched it is asked once more. Triton answers only for requests that a client sent
to this model itself: a step of an ensemble is seldom told (triton-inference-server/server issue 6739).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger("ssjf.cancellation")


class Watched(Protocol):
    """Something whose client may go; asking is a round trip."""

    def is_cancelled(self) -> bool: ...


class CancellationPoller:
    """Owns the list of watched channels; other threads change it through `watch`, `running` and `forget`.

    `on_gone` is called on the poller's thread, once for each channel whose client has gone.
    """

    def __init__(self, on_gone: Callable[[int], None], period_s: float, waiting_per_tick: int = 64):
        self._on_gone = on_gone
        self._period_s = period_s
        self._waiting_per_tick = waiting_per_tick
        self._lock = threading.Lock()
        self._channels: dict[int, Watched] = {}
        self._running: set[int] = set()
        self._rotation: deque[int] = deque()
        self._urgent: list[tuple[int, Callable[[bool], None]]] = []
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="ssjf-cancellation", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float) -> None:
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)

    def watch(self, call_id: int, channel: Watched) -> None:
        """Start asking about a request that waits."""
        with self._lock:
            self._channels[call_id] = channel
            self._rotation.append(call_id)

    def running(self, call_id: int, on_answer: Callable[[bool], None]) -> None:
        """Ask about a request now and from now on every tick; `on_answer` gets the first answer, on this thread."""
        with self._lock:
            self._running.add(call_id)
            self._urgent.append((call_id, on_answer))
        self._wake.set()

    def forget(self, call_id: int) -> None:
        with self._lock:
            self._channels.pop(call_id, None)
            self._running.discard(call_id)

    def _run(self) -> None:
        next_tick = time.monotonic() + self._period_s
        while not self._stopping:
            self._wake.wait(max(0.0, next_tick - time.monotonic()))
            self._wake.clear()
            self._answer_urgent()
            if time.monotonic() >= next_tick:
                self._tick()
                next_tick = time.monotonic() + self._period_s

    def _answer_urgent(self) -> None:
        with self._lock:
            questions, self._urgent = self._urgent, []
            asked = [(self._channels.get(call_id), on_answer) for call_id, on_answer in questions]
        for channel, on_answer in asked:
            on_answer(channel is None or self._ask(channel))

    def _tick(self) -> None:
        with self._lock:
            asked = [(call_id, self._channels[call_id]) for call_id in self._running if call_id in self._channels]
            # Those that have ended meanwhile don't count: a flood of refused requests would outrun the rotation.
            most = len(asked) + self._waiting_per_tick
            for _ in range(len(self._rotation)):
                if len(asked) == most:
                    break
                call_id = self._rotation.popleft()
                channel = self._channels.get(call_id)
                if channel is None or call_id in self._running:
                    continue  # finished, or asked every tick already
                self._rotation.append(call_id)
                asked.append((call_id, channel))
        for call_id, channel in asked:
            if self._ask(channel):
                self.forget(call_id)
                self._on_gone(call_id)

    @staticmethod
    def _ask(channel: Watched) -> bool:
        try:
            return channel.is_cancelled()
        except Exception as error:  # a request that cannot be asked is treated as alive: its answer will show
            log.warning("a request could not be asked whether it is cancelled: %s", error)
            return False
