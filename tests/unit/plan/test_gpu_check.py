from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ssjf_tools.plan.gpu_check import main, show, table
from tests.unit.proxy import small_proxy


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Runtime:
    """A call takes 2 ms and 1 ms a row."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def run(self, ids: NDArray[np.int32], mask: NDArray[np.int32]) -> NDArray[np.float32]:
        assert ids.shape == mask.shape
        self.clock.now += 2e-3 + 1e-3 * len(ids)
        return np.zeros((len(ids), 4), np.float32)


def test_latency_and_throughput_of_the_shortest_and_the_longest_bucket() -> None:
    clock = Clock()
    found = table(Runtime(clock), small_proxy.metadata(), 5, clock)
    assert list(found) == ["1x4", "1x12", "8x4", "8x12", "64x4", "64x12"]
    assert found["8x12"]["p50_ms"] == pytest.approx(10)
    assert found["8x12"]["rows_per_s"] == pytest.approx(800)
    shown = show({"tensorrt": {"timing": found}, "torch": {"fp32": found}})
    assert "| 8x12 | 10.00 / 10.00, 800 | 10.00 / 10.00, 800 |" in shown


def test_wrong_arguments_and_a_missing_export_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--exported", str(tmp_path), "--repeats", "0"])
    assert "--repeats is 0; expected at least 1" in capsys.readouterr().err
