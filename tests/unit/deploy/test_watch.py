"""The watch of docs/deploy.md for a server that nobody supervises, run with a stand-in for docker."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

from tests.unit.deploy.page import block_of

# Looks are answered from the lines of a file: 0 well, 1 not well, `reborn` not well because Docker has just started the
# server anew. The end of a file ends the watch (9), as does a restart (0).
DOCKER = """\
sleep() { :; }
answer() {
    read -r first < "$1" || exit 9
    sed -i 1d "$1"
    if [ "$first" = reborn ]; then echo later > started; first=1; fi
    return "$first"
}
docker() {
    echo "$*" >> calls
    case "$*" in
        inspect*) cat started ;;
        *"scripts/health --ready") answer ready ;;
        *"scripts/health --live"*) answer live ;;
        *"restart server") exit 0 ;;
    esac
}
"""


def watch(folder: Path, ready: str, live: str) -> tuple[int, int, int]:
    """The watch's exit code, and how often it asked whether the server is ready and alive."""
    for name, answers in (("ready", ready), ("live", live)):
        (folder / name).write_text("".join(f"{answer}\n" for answer in answers.split()))
    (folder / "started").write_text("first\n")
    script = f"cd {shlex.quote(str(folder))}\n{DOCKER}{block_of('test_watch.py')}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    calls = (folder / "calls").read_text()
    assert calls.count("restart server") == (done.returncode == 0)
    return done.returncode, calls.count("--ready"), calls.count("--live")


def test_three_silent_looks_in_a_row_end_a_server_that_was_ready(tmp_path: Path) -> None:
    assert watch(tmp_path, ready="1 1 0", live="0 1 1 0 1 1 1") == (0, 3, 7)


def test_a_server_that_loads_again_is_left_in_peace(tmp_path: Path) -> None:
    assert watch(tmp_path, ready="0 1 1", live="0 reborn") == (9, 4, 2)


def test_a_server_that_is_well_goes_on(tmp_path: Path) -> None:
    assert watch(tmp_path, ready="0", live="0 0 1 1 0 0") == (9, 1, 7)
