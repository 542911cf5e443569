"""Two pictures of a proxy: predicted against true lengths, and calibration. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bins import LengthBins
from .data import LabelledPrompt, flatten


def draw(
    folder: Path, probabilities: NDArray[np.float64], prompts: Sequence[LabelledPrompt], bins: LengthBins
) -> list[Path]:
    """Write predicted.png and calibration.png into `folder`; returns their paths."""
    import matplotlib as mpl  # noqa: PLC0415 (optional)

    mpl.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    labels = flatten(prompts)
    cap = float(bins.edges[-2])
    expected = (probabilities @ np.minimum(bins.means, cap))[labels.prompt]
    paths = [folder / "predicted.png", folder / "calibration.png"]
    for path, fill in zip(
        paths, (_scatter(expected, labels.tokens), _calibration(probabilities, labels, bins)), strict=True
    ):
        figure, axes = pyplot.subplots(figsize=(6, 5), dpi=120)
        fill(axes)
        figure.tight_layout()
        figure.savefig(path)
        pyplot.close(figure)
    return paths


def _scatter(expected: NDArray[np.float64], true: NDArray[np.int64]) -> Any:
    def fill(axes: Any) -> None:
        axes.loglog(expected, true, ".", alpha=0.3, markersize=4)
        ends = [1, float(max(expected.max(), true.max()))]
        axes.loglog(ends, ends, "k--", linewidth=0.8)
        axes.set(xlabel="predicted tokens", ylabel="true tokens", title="Predicted against true length")

    return fill


def _calibration(probabilities: NDArray[np.float64], labels: Any, bins: LengthBins) -> Any:
    place = bins.index(labels.tokens, labels.censored)
    rows = probabilities[labels.prompt]
    upper = np.cumsum(rows, axis=1)[np.arange(len(place)), place]
    within = upper - rows[np.arange(len(place)), place] * np.random.default_rng(0).random(len(place))

    def fill(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], "k--", linewidth=0.8)
        axes.plot(np.sort(within), np.linspace(0, 1, len(within)))
        axes.set(xlabel="predicted quantile", ylabel="share of answers below it", title="Calibration")

    return fill
