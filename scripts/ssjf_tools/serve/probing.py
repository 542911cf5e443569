"""Probes of a running server, one after the other, in a thread of their own."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from ssjf_tools.serve.health import Health, Probe


class Prober:
    """Asks for health every so often, so that a server that hangs delays nobody else. Owned by the main thread."""

    def __init__(self, probe: Probe, every_s: float, now: float):
        self._probe = probe
        self._every_s = every_s
        self._due = now + every_s
        self._asked: Future[Health] | None = None
        self._pool = ThreadPoolExecutor(1, "health")

    def poll(self, now: float) -> Health | None:
        """The result of a probe that has come in since the last call, if any; starts the next one when it is due."""
        if self._asked is None:
            if now >= self._due:
                self._asked = self._pool.submit(self._probe.check)
            return None
        if not self._asked.done():
            return None
        health = self._asked.result()
        self._due = now + (0 if health.silent else self._every_s)
        self._asked = None
        return health

    def close(self) -> None:
        """Asks no more; a probe under way ends with its connection."""
        self._pool.shutdown(wait=False, cancel_futures=True)
