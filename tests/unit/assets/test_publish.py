from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import pytest

from ssjf_tools.assets.publish import build_once, fingerprint_of


def build(folder: Path) -> dict[str, Any]:
    (folder / "data").write_text("complete")
    return {"name": "thing"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_it_builds_once_per_fingerprint(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "thing"
    assert build_once(target, "a", build, print)
    assert not build_once(target, "a", build, print)
    assert json.loads((target / "asset.json").read_text()) == {"fingerprint": "a", "name": "thing"}
    (target / "stale").touch()
    assert build_once(target, "b", build, print)
    assert fingerprint_of(target) == "b"
    assert names(target) == ["asset.json", "data"]
    assert names(target.parent) == ["thing"]


def test_a_failed_build_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "thing"
    build_once(target, "a", build, print)

    def fail(folder: Path) -> dict[str, Any]:
        (folder / "data").write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        build_once(target, "b", fail, print)
    assert (target / "data").read_text() == "complete"
    assert names(tmp_path) == ["thing"]


def test_leftovers_of_a_killed_build_are_swept(tmp_path: Path) -> None:
    (tmp_path / ".thing.abc.partial").mkdir()
    build_once(tmp_path / "thing", "a", build, print)
    assert names(tmp_path) == ["thing"]


@pytest.mark.parametrize("content", ["not json", "[1]", "{}"])
def test_an_unreadable_folder_is_rebuilt(tmp_path: Path, content: str) -> None:
    target = tmp_path / "thing"
    target.mkdir()
    (target / "asset.json").write_text(content)
    assert build_once(target, "a", build, print)


def slow_build(folder: Path) -> dict[str, Any]:
    time.sleep(0.5)
    with (folder.parent / "count").open("a") as file:
        file.write("built\n")
    return build(folder)


def build_slowly(target: Path) -> None:
    build_once(target, "a", slow_build, print)


def test_two_processes_build_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=build_slowly, args=(tmp_path / "thing",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "count").read_text() == "built\n"
    assert fingerprint_of(tmp_path / "thing") == "a"
