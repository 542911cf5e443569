"""Processes and shared memory of a tritonserver as Linux shows them: to look, end, tidy. Standard library only."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
SHARED_MEMORY = Path("/dev/shm")
STUB_NAME = "triton_python_backend_stub"
# Argument of a stub that names its model's instance, `scheduler_0_0` say: counted from the end (Triton 2.51 to 2.60).
_INSTANCE_ARGUMENT = -2


@dataclass(frozen=True, slots=True)
class Process:
    """One process as /proc shows it. `state` is the letter of ps (Z: dead and not yet reaped)."""

    pid: int
    parent: int
    group: int
    state: str
    arguments: tuple[str, ...]

    @property
    def alive(self) -> bool:
        """Whether it still runs, be it stopped by a signal."""
        return self.state not in ("Z", "X", "x")


def read_process(pid: int, proc: Path = PROC) -> Process | None:
    """The process `pid`, or None when there is none (any more)."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
        arguments = (proc / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    # The name in parentheses may hold spaces and parentheses itself: count from its end.
    state, parent, group = stat[stat.rindex(")") + 2 :].split()[:3]
    words = tuple(word.decode("utf-8", "replace") for word in arguments.split(b"\0")[:-1])
    return Process(pid, int(parent), int(group), state, words)


def all_processes(proc: Path = PROC) -> Iterator[Process]:
    """Every process that can be seen."""
    for entry in proc.iterdir():
        if entry.name.isdigit():
            process = read_process(int(entry.name), proc)
            if process is not None:
                yield process


def live_stubs(server: int, proc: Path = PROC) -> dict[str, int]:
    """Python stubs of the tritonserver with that pid that are alive: instance name (`scheduler_0_0`) to pid."""
    return {
        process.arguments[_INSTANCE_ARGUMENT]: process.pid
        for process in all_processes(proc)
        if process.parent == server and process.alive and _is_stub(process)
    }


def _is_stub(process: Process) -> bool:
    return len(process.arguments) >= 9 and Path(process.arguments[0]).name == STUB_NAME


def model_of(instance: str) -> str:
    """The model of a stub's instance name: `length_predictor_0_0` is of `length_predictor`."""
    return instance.rsplit("_", 2)[0]


def cpu_seconds(pid: int, proc: Path = PROC) -> float:
    """CPU time, user and system, that the process has used; 0 when there is none."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0.0
    user, system = stat[stat.rindex(")") + 2 :].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def resident_mib(pids: Iterable[int], proc: Path = PROC) -> float:
    """Memory that these processes hold, MiB. Raises FileNotFoundError when one of them has ended."""
    texts = (((proc / str(pid)) / "status").read_text() for pid in pids)
    return sum(int(text.split("VmRSS:")[1].split()[0]) for text in texts) / 1024


def family(root: int, proc: Path = PROC) -> set[int]:
    """The process `root`, all its descendants and all members of its process group, as far as they are alive."""
    processes = [process for process in all_processes(proc) if process.alive]
    found = {process.pid for process in processes if root in (process.pid, process.group)}
    while True:
        more = {process.pid for process in processes if process.parent in found} - found
        if not more:
            return found
        found |= more


def end_all(pids: set[int], signal_number: int) -> None:
    """Sends a signal to each; those that are gone are skipped."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal_number)


def still_alive(pids: set[int], proc: Path = PROC) -> set[int]:
    """Those of `pids` that have not ended."""
    return {pid for pid in pids if (process := read_process(pid, proc)) is not None and process.alive}


def end_family(root: int, polite_s: float, reap: Callable[[], object] = lambda: None) -> None:
    """Ends `root` and all that belongs to it: SIGTERM to `root`, after `polite_s` seconds SIGKILL to what is left.

    `reap` is called while waiting, for a parent to collect its dead child.
    """
    members = family(root)
    if polite_s > 0:
        end_all({root} & members, signal.SIGTERM)
    deadline = time.monotonic() + polite_s
    while time.monotonic() < deadline:
        reap()
        members |= family(root)
        if not still_alive({root}):
            break
        time.sleep(0.05)
    # Children whose parent has ended get a moment to notice it by themselves: they free their shared memory then.
    deadline = time.monotonic() + min(polite_s, 2.0)
    while still_alive(members) and time.monotonic() < deadline:
        time.sleep(0.05)
    end_all(still_alive(members | family(root)), signal.SIGKILL)
    deadline = time.monotonic() + 5.0
    while still_alive(members) and time.monotonic() < deadline:
        reap()
        time.sleep(0.02)


def remove_shared_memory(prefix: str, folder: Path = SHARED_MEMORY) -> list[str]:
    """Deletes the segments whose name begins with `prefix`; returns their names. An empty prefix deletes nothing."""
    removed = []
    for path in folder.glob(f"{prefix}*") if prefix else ():
        with suppress(FileNotFoundError):
            path.unlink()
            removed.append(path.name)
    return sorted(removed)
