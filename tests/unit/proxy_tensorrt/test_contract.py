"""The scheduler's side of a swap: distributions are read by the proxy.json that is there now, or stays the old one."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest

from proxy_onnx.contract import LiveMetadata
from proxy_onnx.metadata import ProxyMetadata
from tests.unit.proxy import small_proxy


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def write(folder: Path, **changes: Any) -> None:
    (folder / "new").write_text(json.dumps({**small_proxy.DOCUMENT, **changes}))
    (folder / "new").replace(folder / "proxy.json")


def live(folder: Path) -> tuple[LiveMetadata, Clock]:
    write(folder)
    clock = Clock()
    return LiveMetadata(folder, ProxyMetadata.load(folder), 2.0, clock), clock


def test_new_bin_means_are_read_within_the_period(tmp_path: Path) -> None:
    metadata, clock = live(tmp_path)
    everything_in_the_last_bin = [0, 0, 0, 1]
    assert metadata.current().summarize(everything_in_the_last_bin).mean == 100
    write(tmp_path, bin_means=[2, 8, 32, 200])
    assert metadata.current().summarize(everything_in_the_last_bin).mean == 100
    clock.now = 2.0
    assert metadata.current().summarize(everything_in_the_last_bin).mean == 200


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"bin_edges": [1, 4, 16, 64, 300]},
            "bin_edges is .*; tokenizer and scheduler read it at their start: restart",
        ),
        ({"bin_edges": [1, 4], "bin_means": [2]}, "expected K"),
        ({"vocab_size": 99}, "vocab_size is 99 in the new"),
    ],
)
def test_one_that_would_be_misread_is_refused_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], message: str
) -> None:
    metadata, clock = live(tmp_path)
    before = metadata.current()
    write(tmp_path, **changes)
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            clock.now += 2.0
            assert metadata.current() is before
    assert len(caplog.records) == 1
    assert re.search(message, caplog.messages[0])


def test_a_file_that_is_gone_for_a_moment_changes_nothing(tmp_path: Path) -> None:
    metadata, clock = live(tmp_path)
    before = metadata.current()
    (tmp_path / "proxy.json").unlink()
    clock.now = 2.0
    assert metadata.current() is before
    write(tmp_path, bin_means=[2, 8, 33, 100])
    clock.now = 4.0
    assert metadata.current().bin_means[2] == 33
