from __future__ import annotations

import json
from pathlib import Path

import pytest

from ssjf_tools.bench_core import main as bench_core


def test_bench_core(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "core.json"
    assert bench_core(["--waiting", "2000", "--samples", "200", "--switch-waiting", "500", "--json", str(out)]) == 0
    figures = json.loads(out.read_text())
    assert len(figures["push_pop"]) == 8
    assert figures["switch_s"].keys() == {row["policy"] for row in figures["push_pop"]}
    assert [row["waiting"] for row in figures["growth"]] == [1000]
    assert "live switch" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        bench_core(["--policies", "lifo"])
    with pytest.raises(SystemExit):
        bench_core(["--waiting", "0"])
