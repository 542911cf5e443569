from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    source = np.random.default_rng(0)
    lengths = np.clip(source.lognormal(4.5, 1.0, 500).round(), 1, 2000)
    lines = [f"{int(length)},{int(length > 90)},{np.digitize(length, [40, 90, 200, 400])}" for length in lengths]
    path = tmp_path / "predictions.csv"
    path.write_text("output_tokens,class3,class5\n" + "\n".join(lines) + "\n")
    return path
