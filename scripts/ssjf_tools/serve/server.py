"""One run of tritonserver: its process, its log, its guard, its end."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from ssjf_tools.serve.processes import (
    cpu_seconds,
    end_family,
    family,
    live_stubs,
    model_of,
    remove_shared_memory,
    still_alive,
)

POLITE_STOP_S = 15.0


def new_shm_prefix(instance: str) -> str:
    """A prefix for one server's shared memory that no other server on this machine has."""
    return f"ssjf-{instance}-{uuid.uuid4().hex[:8]}-"


class Server:
    """A tritonserver that was started. Owned by the supervisor's main thread."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path, shm_prefix: str):
        """Starts it in a session of its own, so that Ctrl-C in the terminal reaches only serve."""
        self._shm_prefix = shm_prefix
        self._stubs: dict[str, int] = {}
        self._most_stubs = 0
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "ssjf_tools.serve.guard", str(self.pid), shm_prefix],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Of tritonserver itself; also its process group."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return self._process.poll()

    def stubs(self) -> dict[str, int]:
        """Its Python backend processes that are alive: instance name to pid.

        Looks at all processes of the machine only while one of those that it has known is missing.
        """
        pids = set(self._stubs.values())
        if len(pids) < self._most_stubs or not pids or still_alive(pids) != pids:
            self._stubs = live_stubs(self.pid)
            self._most_stubs = max(self._most_stubs, len(self._stubs))
        return dict(self._stubs)

    def cpu_seconds(self, model: str) -> float:
        """CPU time used so far by the Python processes of `model` and all that these have started."""
        pids = {pid for instance, pid in self._stubs.items() if model_of(instance) == model}
        return sum(cpu_seconds(member) for pid in pids for member in family(pid))

    def kill(self) -> None:
        """Ends it at once, with everything that it started."""
        self._end(0)

    def stop(self, polite_s: float = POLITE_STOP_S) -> None:
        """Ends it by SIGTERM, within `polite_s` seconds or else by force."""
        self._end(polite_s)

    def _end(self, polite_s: float) -> None:
        end_family(self.pid, polite_s, reap=self._process.poll)
        self._process.wait()
        remove_shared_memory(self._shm_prefix)
        guard_input = self._guard.stdin
        if guard_input is not None and not guard_input.closed:
            try:
                guard_input.write(b"done\n")
                guard_input.close()
            except BrokenPipeError:
                pass  # somebody killed the guard; nothing is left for it to do
            self._guard.wait()
