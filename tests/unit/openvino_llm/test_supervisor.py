from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openvino_llm.errors import EngineStartError
from openvino_llm.messages import Configure, Progress
from openvino_llm.settings import EngineSettings
from openvino_llm.supervisor import Down, Supervisor, Up, interpreter
from tests.unit.openvino_llm.fakes import FACTS

# Speaks the worker's protocol: says Ready, reports its process id as a token, then waits for the end.
FAKE_WORKER = """
import os, sys
from multiprocessing.connection import Connection
from openvino_llm.messages import Alive, Delta, Fatal, Progress, Ready
connection = Connection(int(sys.argv[1]))
connection.recv()
if {fatal}:
    connection.send(Fatal("no such model"))
    sys.exit(1)
connection.send(Ready(0.0))
connection.send(Progress((Delta(os.getpid()),)))
while not {hangs} and not connection.poll(0.2):
    connection.send(Alive())
try:
    connection.recv()
except EOFError:
    pass
"""


def supervisor(
    folder: Path, events: queue.SimpleQueue[Up | Progress | Down], fatal: bool = False, hangs: bool = False
) -> Supervisor:
    worker = folder / "worker.py"
    worker.write_text(FAKE_WORKER.format(fatal=fatal, hangs=hangs))
    launcher = folder / "python"  # called as: python -m openvino_llm.worker <fd> <pid>
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {worker} "$3"\n')
    launcher.chmod(0o755)
    settings = EngineSettings(python_executable=str(launcher), start_timeout_s=30, hang_timeout_s=1)
    return Supervisor(Configure(settings, FACTS), events.put)


@pytest.fixture
def events() -> queue.SimpleQueue[Up | Progress | Down]:
    return queue.SimpleQueue()


@pytest.fixture
def running(tmp_path: Path, events: queue.SimpleQueue[Up | Progress | Down]) -> Iterator[Supervisor]:
    found = supervisor(tmp_path, events)
    found.start()
    yield found
    found.close()


def process_id(events: queue.SimpleQueue[Up | Progress | Down]) -> int:
    assert isinstance(events.get(timeout=10), Up)
    progress = events.get(timeout=10)
    assert isinstance(progress, Progress)
    return progress.deltas[0].key


def test_a_killed_process_is_reported_and_replaced(
    running: Supervisor, events: queue.SimpleQueue[Up | Progress | Down]
) -> None:
    first = process_id(events)
    os.kill(first, signal.SIGKILL)
    down = events.get(timeout=10)
    assert isinstance(down, Down)
    assert "status -9" in down.reason
    assert process_id(events) != first


def test_a_process_that_hangs_is_killed_and_replaced(
    tmp_path: Path, events: queue.SimpleQueue[Up | Progress | Down]
) -> None:
    hanging = supervisor(tmp_path, events, hangs=True)
    hanging.start()
    first = process_id(events)
    down = events.get(timeout=10)
    assert isinstance(down, Down)
    assert "said nothing for 1 s" in down.reason
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    assert process_id(events) != first
    hanging.close()


def test_a_process_with_nothing_to_do_stays(
    running: Supervisor, events: queue.SimpleQueue[Up | Progress | Down]
) -> None:
    first = process_id(events)
    with pytest.raises(queue.Empty):
        events.get(timeout=4.0)
    os.kill(first, 0)


def test_closing_ends_the_process(tmp_path: Path, events: queue.SimpleQueue[Up | Progress | Down]) -> None:
    closing = supervisor(tmp_path, events)
    closing.start()
    process = process_id(events)
    closing.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


def test_a_process_that_cannot_start_says_why(tmp_path: Path, events: queue.SimpleQueue[Up | Progress | Down]) -> None:
    with pytest.raises(EngineStartError, match="no such model"):
        supervisor(tmp_path, events, fatal=True).start()


def test_a_missing_interpreter_says_so(events: queue.SimpleQueue[Up | Progress | Down]) -> None:
    settings = EngineSettings(python_executable="/nowhere/python")
    with pytest.raises(EngineStartError, match="/nowhere/python"):
        Supervisor(Configure(settings, FACTS), events.put).start()


def test_the_interpreter_is_one_of_this_version() -> None:
    assert Path(interpreter("")).is_file()
    assert interpreter("/usr/bin/other") == "/usr/bin/other"
