from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ssjf_tools.serve import processes

STUB = f"/run/backends/python/{processes.STUB_NAME}"


def add_process(
    proc: Path, pid: int, parent: int, state: str = "S", group: int = 10, name: str = "name", *arguments: str
) -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} ({name}) {state} {parent} {group} 1 0 -1 0\n")
    (folder / "cmdline").write_bytes(b"".join(word.encode() + b"\0" for word in arguments))


def stub_arguments(instance: str) -> tuple[str, ...]:
    return (STUB, "/m/model.py", "prefix-uuid", "1048576", "1048576", "10", "/be/python", "336", instance, "DEFAULT")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    folder = tmp_path / "proc"
    add_process(folder, 10, 1, "S", 10, "tritonserver", "tritonserver")
    (folder / "self").mkdir()
    return folder


def test_live_stubs_of_this_server_are_found_by_instance(proc: Path) -> None:
    add_process(proc, 11, 10, "S", 10, "triton_python_b", *stub_arguments("scheduler_0_0"))
    add_process(proc, 12, 10, "R", 10, "triton_python_b", *stub_arguments("length_predictor_0_1"))
    add_process(proc, 13, 10, "S", 10, "other", "sleep", "9")
    add_process(proc, 21, 20, "S", 20, "triton_python_b", *stub_arguments("unary_0_0"))
    assert processes.live_stubs(10, proc) == {"scheduler_0_0": 11, "length_predictor_0_1": 12}


def test_model_of_an_instance() -> None:
    assert processes.model_of("length_predictor_0_12") == "length_predictor"


def test_cpu_seconds_add_user_and_system_time(proc: Path) -> None:
    folder = proc / "40"
    folder.mkdir()
    ticks = os.sysconf("SC_CLK_TCK")
    (folder / "stat").write_text(f"40 (a b) S 1 40 40 0 -1 0 0 0 0 0 {3 * ticks} {ticks} 7 7 20 0\n")
    assert processes.cpu_seconds(40, proc) == 4.0
    assert processes.cpu_seconds(41, proc) == 0.0


def test_a_stub_that_is_a_zombie_is_dead(proc: Path) -> None:
    add_process(proc, 11, 10, "Z", 10, "triton_python_b")
    add_process(proc, 12, 10, "Z", 10, "triton_python_b", *stub_arguments("unary_0_0"))
    assert processes.live_stubs(10, proc) == {}


def test_a_stub_stopped_by_a_signal_is_not_dead(proc: Path) -> None:
    add_process(proc, 11, 10, "T", 10, "triton_python_b", *stub_arguments("unary_0_0"))
    assert processes.live_stubs(10, proc) == {"unary_0_0": 11}


@pytest.mark.parametrize("name", ["a b", "a) b", "(x) S 99 98", ""])
def test_a_name_with_spaces_and_parentheses_is_read_right(proc: Path, name: str) -> None:
    add_process(proc, 30, 10, "R", 12, name, "x", "")
    assert processes.read_process(30, proc) == processes.Process(30, 10, 12, "R", ("x", ""))


def test_a_process_that_ends_while_being_read_is_no_process(proc: Path) -> None:
    (proc / "31").mkdir()
    assert processes.read_process(31, proc) is None
    assert [process.pid for process in processes.all_processes(proc)] == [10]


def test_family_is_group_and_descendants_without_the_dead(proc: Path) -> None:
    add_process(proc, 11, 10, group=10)
    add_process(proc, 12, 11, group=12)  # in a session of its own, but a descendant
    add_process(proc, 13, 1, group=10)  # an orphan of the group
    add_process(proc, 14, 13, group=14)
    add_process(proc, 15, 10, "Z", group=10)
    add_process(proc, 99, 1, group=99)
    assert processes.family(10, proc) == {10, 11, 12, 13, 14}
    assert processes.family(77, proc) == set()


def test_shared_memory_is_removed_by_prefix_only(tmp_path: Path) -> None:
    for name in ("ssjf-a-1", "ssjf-a-2", "ssjf-b-1", "other"):
        (tmp_path / name).touch()
    assert processes.remove_shared_memory("ssjf-a-", tmp_path) == ["ssjf-a-1", "ssjf-a-2"]
    assert processes.remove_shared_memory("", tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "ssjf-b-1"]


PARENT = """
import signal, subprocess, sys, time
if sys.argv[1] == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
same_group = subprocess.Popen(["sleep", "60"])
own_session = subprocess.Popen(["sleep", "60"], start_new_session=True)
print(same_group.pid, own_session.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(("kind", "polite_s"), [("polite", 5.0), ("stubborn", 0.3), ("polite", 0.0)])
def test_ending_a_family_leaves_no_member_alive(kind: str, polite_s: float) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, kind], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        members = {parent.pid, *map(int, parent.stdout.readline().split())}
        assert processes.still_alive(members) == members
        processes.end_family(parent.pid, polite_s, reap=parent.poll)
    assert processes.still_alive(members) == set()


def test_orphans_of_a_dead_server_are_ended_too() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, "polite"], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as parent:
        assert parent.stdout is not None
        in_group = int(parent.stdout.readline().split()[0])
        parent.kill()
        parent.wait()
        assert processes.still_alive({in_group}) == {in_group}
        processes.end_family(parent.pid, 0)
    assert processes.still_alive({in_group}) == set()


def test_the_guard_tidies_up_when_its_pipe_ends_without_a_word(tmp_path: Path) -> None:
    prefix = f"ssjf-test-guard-{os.getpid()}-"
    segment = processes.SHARED_MEMORY / f"{prefix}x"
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as server:
        segment.touch()
        guard = _guard(server.pid, prefix)
        assert guard.stdin is not None
        guard.stdin.close()
        server.wait(timeout=10)
        assert server.returncode == -signal.SIGTERM
        assert guard.wait(timeout=10) == 0
    assert not segment.exists()


def test_the_guard_does_nothing_when_told_that_all_is_done() -> None:
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as server:
        guard = _guard(server.pid, "ssjf-test-none-")
        guard.communicate(b"done\n", timeout=10)
        time.sleep(0.1)
        assert server.poll() is None
        server.kill()


def _guard(pid: int, prefix: str) -> subprocess.Popen[bytes]:
    scripts = Path(processes.__file__).resolve().parents[2]
    return subprocess.Popen(
        [sys.executable, "-m", "ssjf_tools.serve.guard", str(pid), prefix],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(scripts)},
    )
