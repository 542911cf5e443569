"""When to restart a server, and how often: pure decisions; time and observations are arguments."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass

from ssjf_tools.serve.components import ENGINE
from ssjf_tools.serve.health import Health
from ssjf_tools.serve.processes import model_of

RESTARTS_AT_MOST = 10
RESTART_WINDOW_S = 300.0
_DELAYS_S = (0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 5.0, 10.0, 10.0)


class Watch:
    """Judges one run of a server. `instances` are the Python stubs that it had when it became ready.

    `absent` are models that did not answer even then: an engine that lives in another server, say.
    """

    def __init__(self, instances: Iterable[str], failures_until_dead: int, absent: Iterable[str] = ()):
        self._instances = frozenset(instances)
        self._limit = failures_until_dead
        self._absent = frozenset(absent)
        self._failures = 0

    def judge_processes(self, exit_code: int | None, stubs: Iterable[str]) -> str:
        """Why the server must be restarted, from its exit code (None: running) and its live stubs; empty: all well."""
        if exit_code is not None:
            return f"tritonserver ended ({describe_exit(exit_code)})"
        dead = self.dead_models(stubs)
        return f"the Python process of {', '.join(dead)} died" if dead else ""

    def dead_models(self, stubs: Iterable[str]) -> list[str]:
        """The models that had a Python process and have it no more."""
        return sorted({model_of(instance) for instance in self._instances - set(stubs)})

    def judge_health(self, health: Health) -> str:
        """Why the server must be restarted, from a probe's result; empty: it is well, or merely busy."""
        silent = health.silent - self._absent
        if is_alive(silent, health.moved):
            self._failures = 0
            return ""
        self._failures += 1
        if self._failures < self._limit:
            return ""
        return f"no answer from {', '.join(sorted(silent))} {self._failures} times in a row"


def is_alive(silent: frozenset[str], moved: bool) -> bool:
    """Whether a server is well or merely busy, of which `silent` models do not answer while work gets done or not.

    Busy is an engine that is full, so that even its direct request waits, and that gets work done.
    """
    return not silent or (silent == {ENGINE} and moved)


@dataclass(slots=True)
class Restarts:
    """Counts restarts; owned by the supervisor. `now` is monotonic seconds."""

    _times: tuple[float, ...] = ()

    def next_delay(self, now: float) -> float | None:
        """Seconds to wait before the restart that is due, growing when they come thick; None: give up."""
        recent = tuple(time for time in self._times if now - time < RESTART_WINDOW_S)
        if len(recent) >= RESTARTS_AT_MOST:
            return None
        self._times = (*recent, now)
        return _DELAYS_S[len(recent)]


def describe_exit(code: int) -> str:
    """An exit code in words; negative: the signal that ended the process."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
