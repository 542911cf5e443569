"""The command under a real mpirun (Debian's openmpi-bin, where installed), with scripts in place of tritonserver."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ssjf_tools.launch.plan import mpirun_command

pytestmark = pytest.mark.skipif(shutil.which("mpirun") is None, reason="mpirun is not installed")

WAIT_S = 30.0
RANK = """\
#!/bin/bash
here={here}
trap 'touch $here/ended-$OMPI_COMM_WORLD_RANK; exit 0' TERM
echo "$SSJF_SELF_URL $*" > $here/new-$OMPI_COMM_WORLD_RANK
mv $here/new-$OMPI_COMM_WORLD_RANK $here/started-$OMPI_COMM_WORLD_RANK
until [[ -e $here/die-$OMPI_COMM_WORLD_RANK ]]; do sleep 0.05; done
exit 3
"""


def until(condition: Callable[[], bool], what: str) -> None:
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < WAIT_S, f"no {what} within {WAIT_S:g} s"
        time.sleep(0.05)


@pytest.fixture
def server(tmp_path: Path) -> Path:
    path = tmp_path / "tritonserver"
    path.write_text(RANK.format(here=tmp_path))
    path.chmod(0o755)
    return path


def start(server: Path) -> subprocess.Popen[bytes]:
    command = mpirun_command([str(server), "--model-repository=/x", "--grpc-port=1"], 2, as_root=True)
    at_least = [command[0], "--oversubscribe", *command[1:]]  # a small machine may have fewer cores than ranks
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(server.parent), "SSJF_SELF_URL": "here:1"}
    running = subprocess.Popen(at_least, env=environment, stdin=subprocess.DEVNULL)
    until(lambda: len(list(server.parent.glob("started-*"))) == 2, "start of both ranks")
    return running


def test_a_sigterm_to_mpirun_reaches_every_rank(server: Path) -> None:
    running = start(server)
    assert (server.parent / "started-0").read_text() == "here:1 --model-repository=/x --grpc-port=1\n"
    assert "here:1 --model-repository=/x --allow-http=false" in (server.parent / "started-1").read_text()
    running.send_signal(signal.SIGTERM)
    running.wait(WAIT_S)
    until(lambda: len(list(server.parent.glob("ended-*"))) == 2, "end of both ranks")  # mpirun does not wait for them


def test_all_end_when_one_rank_does(server: Path) -> None:
    running = start(server)
    (server.parent / "die-1").touch()
    assert running.wait(WAIT_S) != 0
    until((server.parent / "ended-0").exists, "end of the other rank")
