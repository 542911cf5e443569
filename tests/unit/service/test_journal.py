from __future__ import annotations

import errno
import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssjf.service.journal import Journal, JournalLimits, LineFormat
from ssjf.service.journal_file import RotatingFile
from ssjf.service.outcome import Outcome
from ssjf.service.records import FinishedRow

ROW = FinishedRow(
    outcome=Outcome.FINISHED, request_id="r", tenant="t", priority_class=1, policy="ssjf", prompt_tokens=5,
    predicted_tokens=40, predicted_by="proxy", output_tokens=60, queue_s=0.5, ttft_s=0.75, jct_s=2.0, arrival=10.0,
    prompt="Wie geht's, Ömer?".encode(), max_tokens=64, sequences=2, finish="length", trace="00-ab-cd-01",
)  # fmt: skip


class FakeSink:
    """Keeps lines; `gate` holds writes back, `error` makes them fail."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.error: OSError | None = None
        self.attempts = 0
        self.closed = False

    def write(self, lines: list[bytes]) -> int:
        self.gate.wait(10)
        self.attempts += 1
        if self.error is not None:
            raise self.error
        self.lines += lines
        return len(lines)

    def close(self) -> None:
        self.closed = True


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_line_holds_what_training_and_replay_need() -> None:
    entry = json.loads(LineFormat(prompts=True, clock_offset_s=1000.0).line(ROW))
    assert entry.pop("id")
    assert entry == {
        "prompt": "Wie geht's, Ömer?", "arrival": 1010.0, "outcome": "finished", "prompt_tokens": 5,
        "output_tokens": 30, "finish": "length", "predicted_tokens": 40, "predicted_by": "proxy", "max_tokens": 64,
        "sequences": 2, "queue_s": 0.5, "ttft_s": 0.75, "jct_s": 2.0, "policy": "ssjf", "tenant": "t",
        "priority_class": 1, "request_id": "r", "trace": "00-ab-cd-01",
    }  # fmt: skip


def test_prompts_are_left_out_unless_wanted_and_an_unfinished_answer_has_no_finish() -> None:
    cut_off = replace(ROW, outcome=Outcome.CANCELLED, ttft_s=None)
    entry = json.loads(LineFormat(prompts=False, clock_offset_s=0.0).line(cut_off))
    assert "prompt" not in entry
    assert (entry["outcome"], entry["finish"], entry["ttft_s"]) == ("cancelled", None, None)


@given(st.text(), st.text(), st.binary())
def test_every_line_is_one_line_of_json_whatever_clients_send(request_id: str, tenant: str, prompt: bytes) -> None:
    line = LineFormat(prompts=True, clock_offset_s=0.0).line(
        replace(ROW, request_id=request_id, tenant=tenant, prompt=prompt)
    )
    assert line.endswith(b"\n")
    assert len(line.split(b"\n")) == 2
    assert json.loads(line)["outcome"] == "finished"


def test_ids_are_unique_over_restarts() -> None:
    formats = [LineFormat(prompts=False, clock_offset_s=0.0) for _ in range(2)]
    ids = {json.loads(each.line(ROW))["id"] for each in formats for _ in range(3)}
    assert len(ids) == 6


def test_what_waits_is_written_before_the_end() -> None:
    sink = FakeSink()
    journal = Journal(sink, prompts=False)
    for _ in range(600):
        journal.write(ROW)
    journal.start()
    journal.stop(10)
    assert (len(sink.lines), sink.closed) == (600, True)
    assert journal.state() == {"failing": False, "written": 600, "dropped_queue": 0, "dropped_write": 0}


@pytest.mark.parametrize(
    "limits", [JournalLimits(records=3), JournalLimits(bytes=3 * (512 + len(ROW.prompt)))], ids=["records", "bytes"]
)
def test_a_full_queue_drops_and_counts_and_never_blocks(limits: JournalLimits) -> None:
    sink = FakeSink()
    journal = Journal(sink, prompts=True, limits=limits)
    for _ in range(10):
        journal.write(ROW)
    assert journal.counts.dropped["queue"] == 7
    journal.start()
    until(lambda: journal.counts.written == 3)
    journal.write(ROW)
    journal.stop(10)
    assert journal.counts.written == 4


def test_a_disk_that_hangs_holds_up_nobody_but_the_journal() -> None:
    sink = FakeSink()
    sink.gate.clear()
    journal = Journal(sink, prompts=False, limits=JournalLimits(records=2))
    journal.start()
    begun = time.monotonic()
    for _ in range(1000):
        journal.write(ROW)
    assert time.monotonic() - begun < 5
    assert journal.counts.dropped["queue"] > 0
    sink.gate.set()
    journal.stop(10)
    assert journal.counts.written + journal.counts.dropped["queue"] == 1000


def test_a_full_disk_costs_records_and_one_log_line_and_heals(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ssjf.journal")
    sink, clock = FakeSink(), [0.0]
    sink.error = OSError(errno.ENOSPC, "No space left on device")
    journal = Journal(sink, prompts=False, limits=JournalLimits(retry_s=1.0), clock=lambda: clock[0])
    journal.start()
    for number in range(1, 4):
        journal.write(ROW)
        until(lambda number=number: journal.counts.dropped["write"] == number)  # type: ignore[misc]
    assert (journal.failing, sink.attempts) == (True, 1)  # left alone for a second
    sink.error = None
    clock[0] = 1.0
    journal.write(ROW)
    until(lambda: journal.counts.written == 1)
    journal.stop(10)
    assert not journal.failing
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert "No space left on device" in caplog.text


def files_of(path: Path) -> list[Path]:
    """Oldest first."""
    older = sorted(path.parent.glob(path.name + ".*"), key=lambda each: -int(each.suffix[1:]))
    return [*older, path]


@given(
    st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=5), min_size=1, max_size=12),
    st.integers(20, 100),
    st.integers(1, 4),
    st.booleans(),
)
def test_rotation_keeps_the_newest_lines_whole_and_within_the_limits(
    batches: list[list[int]], max_bytes: int, count: int, reopen: bool
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "made" / "journal.jsonl"
        file = RotatingFile(path, max_bytes, count)
        numbers = iter(range(1000))
        lines = []
        for sizes in batches:
            batch = [f"{next(numbers)}:".encode() + b"x" * size + b"\n" for size in sizes]
            assert file.write(batch) == len(batch)
            lines += batch
            if reopen:
                file.close()
        file.close()
        kept = [each.read_bytes() for each in files_of(path)]
        assert len(kept) <= count
        assert all(len(each) <= max_bytes or each.count(b"\n") == 1 for each in kept)
        found = b"".join(kept)
        assert found
        assert b"".join(lines).endswith(found)
        assert found.splitlines(keepends=True)[0] in lines


@pytest.mark.parametrize("files", [1, 3])
def test_nothing_is_lost_before_the_oldest_file_goes(tmp_path: Path, files: int) -> None:
    path = tmp_path / "journal.jsonl"
    file = RotatingFile(path, 10, files)
    file.write([b"%x\n" % number for number in range(5 * files)])
    file.close()
    assert b"".join(each.read_bytes() for each in files_of(path)) == b"".join(b"%x\n" % n for n in range(5 * files))


def test_half_a_line_of_a_process_that_died_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_bytes(b"whole\n" + b"h" * 100_000)
    file = RotatingFile(path, 1_000_000, 2)
    file.write([b"next\n"])
    file.close()
    assert path.read_bytes() == b"whole\nnext\n"


def test_a_write_that_ends_half_way_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    path = tmp_path / "journal.jsonl"
    file = RotatingFile(path, 1_000, 2)
    file.write([b"first\n"])
    whole_write = os.write

    def half_write(descriptor: int, data: Any) -> int:
        return whole_write(descriptor, data[: len(data) // 2])

    monkeypatch.setattr("ssjf.service.journal_file.os.write", half_write)
    with pytest.raises(OSError, match="No space left"):
        file.write([b"second\n", b"third\n"])
    monkeypatch.undo()
    assert path.read_bytes() == b"first\n"
    file.write([b"fourth\n"])
    file.close()
    assert path.read_bytes() == b"first\nfourth\n"


def test_a_device_that_is_full_is_reported_by_the_real_system() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")
    journal = Journal(RotatingFile(full, 4096, 1), prompts=False)
    journal.start()
    journal.write(ROW)
    until(lambda: journal.counts.dropped["write"] == 1)
    journal.stop(10)
    assert journal.failing


def test_a_folder_that_cannot_be_made_is_a_failed_write_and_no_crash(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    journal = Journal(RotatingFile(tmp_path / "file" / "journal.jsonl", 4096, 1), prompts=False)
    journal.start()
    journal.write(ROW)
    until(lambda: journal.counts.dropped["write"] == 1)
    journal.stop(10)
    assert journal.failing
