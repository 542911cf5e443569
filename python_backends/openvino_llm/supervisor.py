"""The inference process as seen from the Triton stub: started, listened to, replaced when it dies or hangs."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

from openvino_llm.errors import EngineStartError
from openvino_llm.messages import Configure, Fatal, Progress, Ready

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0
# A second chance before a silent process is killed: where this one was stopped, too, it may have been so for as long.
_SECOND_CHANCE_S = 2.0


@dataclass(frozen=True, slots=True)
class Up:
    """The inference process takes work through this connection."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Down:
    """The inference process is gone: whatever it had is lost."""

    reason: str


class Supervisor:
    """One thread that starts the process, hands on what it says, and starts it again.

    `report` is called from that thread with Up, Progress and Down, in this order for each life of the process. The
    thread outlives the process on purpose: PR_SET_PDEATHSIG kills a child when the *thread* that made it ends.
    """

    def __init__(self, configure: Configure, report: Callable[[Up | Progress | Down], None]):
        self._configure = configure
        self._report = report
        self._first_answer = threading.Event()
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="engine-supervisor", daemon=True)
        self._lock = threading.Lock()  # guards the two below
        self._closing = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process and wait until it is ready. Raises EngineStartError."""
        self._thread.start()
        timeout = self._configure.settings.start_timeout_s
        if not self._first_answer.wait(timeout):
            self._failure = f"the inference process was not ready within start_timeout_s = {timeout} s"
        if self._failure is not None:
            self.close()
            raise EngineStartError(self._failure)

    def close(self) -> None:
        """Kill the process (it holds nothing that would outlive it) and wait for the thread."""
        with self._lock:
            self._closing.set()
            if self._process is not None:
                self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        pause = FIRST_PAUSE_S
        while not self._closing.is_set():
            was_ready, reason = self._one_life()
            self._report(Down(reason))
            if not self._first_answer.is_set():
                self._failure = reason
                self._first_answer.set()
                return
            if not self._closing.is_set():
                pause = FIRST_PAUSE_S if was_ready else min(2 * pause, LONGEST_PAUSE_S)
                log.error("inference process lost (%s); starting it again in %.1f s", reason, pause)
                self._closing.wait(pause)

    def _one_life(self) -> tuple[bool, str]:
        """From start to end of one process: whether it was ever ready, and why it ended."""
        ours, theirs = Pipe()
        try:
            process = self._spawn(theirs)
        except OSError as error:
            ours.close()
            return False, f"cannot start the inference process: {error}"
        finally:
            theirs.close()
        was_ready, reason = False, ""
        try:
            ours.send(self._configure)
            while True:
                limit = self._patience_s(was_ready)
                if not (ours.poll(limit) or ours.poll(_SECOND_CHANCE_S)):
                    reason = f"it has said nothing for {limit:g} s"
                    break
                message = ours.recv()
                if isinstance(message, Progress):
                    self._report(message)
                elif isinstance(message, Ready):
                    was_ready = True
                    log.info("inference process %d ready after %.1f s", process.pid, message.load_seconds)
                    self._report(Up(ours))
                    self._first_answer.set()
                elif isinstance(message, Fatal):
                    reason = message.reason
        except (EOFError, OSError):
            pass
        process.kill()
        status = process.wait()
        with self._lock:
            self._process = None
        return was_ready, reason or f"it ended with status {status}"

    def _patience_s(self, was_ready: bool) -> float:
        settings = self._configure.settings
        return settings.hang_timeout_s if was_ready else settings.start_timeout_s

    def _spawn(self, theirs: Connection) -> subprocess.Popen[bytes]:
        descriptor = theirs.fileno()
        executable = interpreter(self._configure.settings.python_executable)
        command = [executable, "-m", "openvino_llm.worker", str(descriptor), str(os.getpid())]
        # The stub's own sys.path: the packages of its environment and the folder of the backends.
        environment = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, sys.path)))
        with self._lock:
            if self._closing.is_set():
                raise OSError("the engine is closing")
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=(descriptor,), stdin=subprocess.DEVNULL, cwd=Path("/")
            )
            return self._process


def interpreter(configured: str) -> str:
    """The Python to run the inference process with: the version that the stub embeds."""
    if configured:
        return configured
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    near = [Path(sys.prefix) / "bin" / name for name in (version, "python3")]
    if Path(sys.executable or "").name.startswith("python"):
        near.insert(0, Path(sys.executable))
    found = (
        next((str(path) for path in near if path.is_file()), None) or shutil.which(version) or shutil.which("python3")
    )
    if found is None:
        raise OSError(f"no {version} found; set parameter python_executable")
    return found
