"""NVIDIA's own load generator, unmodified, against the ensemble."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ssjf_tools import perf_analyzer
from ssjf_tools.bootstrap import CHECKOUT
from ssjf_tools.serve.throwaway import Throwaway


@pytest.mark.parametrize("concurrency", [1, 16])
def test_perf_analyzer_completes_without_errors(server: Throwaway, concurrency: int, tmp_path: Path) -> None:
    load = ["-m", "ensemble", "-i", "grpc", "-u", server.grpc_url, "--streaming", "--async"]
    amount = ["--concurrency-range", str(concurrency), "--request-count", str(8 + concurrency)]
    done = subprocess.run(
        [sys.executable, "-m", "ssjf_tools.perf_analyzer", *load, *amount],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT / "scripts")},
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=150,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Throughput:" in done.stdout
    assert "Failed" not in done.stderr


def test_help_needs_nothing_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert perf_analyzer.main(["--help"]) == 0
    assert "tritonclient 2.50.0" in capsys.readouterr().out
