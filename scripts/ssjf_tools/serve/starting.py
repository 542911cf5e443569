"""From a process that was started to a server that answers."""

from __future__ import annotations

import time
from collections.abc import Callable

from ssjf_client import ClientError, Door
from ssjf_tools.serve.health import Probe
from ssjf_tools.serve.log import loaded_models
from ssjf_tools.serve.server import Server
from ssjf_tools.serve.watch import Watch

FIRST_INFERENCE_TIMEOUT_S = 20.0
DOORS: tuple[Door, ...] = ("ensemble", "unary")
SAY_EVERY_S = 2.0


class StartError(Exception):
    """The server did not become ready; the text says why."""


class Start:
    """One start, seen from its beginning. `step` is called again and again until it says that the server is ready."""

    def __init__(self, server: Server, probe: Probe, timeout_s: float, say: Callable[[str], None]):
        self._server = server
        self._probe = probe
        self._timeout_s = timeout_s
        self._say = say
        self._begun = self._said = time.monotonic()
        self._doors = list(DOORS)
        self._error = ""
        self._watch = Watch((), failures_until_dead=1)
        self._opened = False

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def step(self, log_lines: list[str]) -> bool:
        """True when a real inference has come back from every door; blocks for one of them. Raises StartError."""
        self._tell(log_lines)
        reason = self._watch.judge_processes(self._server.exit_code(), self._server.stubs() if self._opened else ())
        if reason:
            raise StartError(f"{reason} while starting")
        left = self._timeout_s - self.seconds
        if left <= 0:
            raise StartError(f"not ready after {self._timeout_s:g} s{self._error and '; ' + self._error}")
        if self._opened or self._probe.reachable():
            self._open()
            self._ask(min(left, FIRST_INFERENCE_TIMEOUT_S))
        return not self._doors

    def _open(self) -> None:
        """All models are loaded: from here on no Python process may be missing (while loading, some come and go)."""
        if not self._opened:
            self._opened = True
            self._watch = Watch(self._server.stubs(), failures_until_dead=1)

    def _ask(self, timeout_s: float) -> None:
        try:
            self._probe.infer(self._doors[0], timeout_s)
            self._doors.pop(0)
        except ClientError as failure:
            error = f"{self._doors[0]} answered: {failure}"
            if error != self._error:
                self._say(f"not ready yet: {error}")
            self._error = error

    def _tell(self, log_lines: list[str]) -> None:
        """Shows what has been loaded, or at least that something goes on."""
        news = [f"loaded {model}" for model in loaded_models(log_lines)]
        if not news and time.monotonic() - self._said > SAY_EVERY_S:
            news = ["starting"]
        for text in news:
            self._said = time.monotonic()
            self._say(f"{text} ({self.seconds:.1f} s)")
