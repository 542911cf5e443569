from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from ssjf.service.cancellation import CancellationPoller


@dataclass
class Watched:
    gone: bool = False

    def is_cancelled(self) -> bool:
        return self.gone


def test_a_flood_of_ended_requests_does_not_delay_the_question_to_one_that_waits() -> None:
    """Asked in rotation, 8 a tick: ten thousand that have ended would take 12 s if each of them took a turn."""
    found = threading.Event()
    poller = CancellationPoller(lambda _call_id: found.set(), period_s=0.01, waiting_per_tick=8)
    for call_id in range(10_000):
        poller.watch(call_id, Watched())
        poller.forget(call_id)
    poller.watch(10_000, Watched(gone=True))
    begun = time.monotonic()
    poller.start()
    try:
        assert found.wait(10)
    finally:
        poller.stop(5)
    assert time.monotonic() - begun < 5
