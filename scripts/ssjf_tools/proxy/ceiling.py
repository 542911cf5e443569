"""How good any predictor could be: what a second answer to the same prompt says about the first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .bins import LengthBins
from .data import LabelledPrompt
from .metrics import kendall_tau_b
from .scheduling import oracle_shares

FEWEST_PAIRS = 50
_RESAMPLES = 400
_INTERVAL = (2.5, 97.5)  # percentiles


def ceiling_scores(
    probabilities: NDArray[np.float64], prompts: Sequence[LabelledPrompt], bins: LengthBins
) -> dict[str, float]:
    """Figures on the prompts that have two answers; none below 50 of them.

    ceiling_tau_b: tau_b between the two answers. ceiling_kendall_tau_b: of the prediction against either, on average.
    ceiling_share: the second by the first, with the ends of its 95 % interval by drawing prompts anew.
    ceiling_tau_b_<file>, ceiling_share_<file>: for each file that prompts came from, where it has 50 of them.
    second_sample_share_c1: share of the oracle's gain that the other answer buys as a prediction, 1 slot;
    share_of_second_sample_c1: the proxy's by that.
    """
    chosen = [index for index, prompt in enumerate(prompts) if len(prompt.samples) > 1]
    if len(chosen) < FEWEST_PAIRS:
        return {}
    cap = float(bins.edges[-2])
    pairs = np.array([[sample.tokens for sample in prompts[index].samples[:2]] for index in chosen], dtype=np.float64)
    first, second = np.minimum(pairs, cap).T
    expected = probabilities[chosen] @ np.minimum(bins.means, cap)
    ceiling, reached = _agreements(expected, first, second)
    twice = np.concatenate([first, second])
    bought = oracle_shares(twice, np.concatenate([expected, expected]))["oracle_share_c1"]
    possible = oracle_shares(twice, np.concatenate([second, first]))["oracle_share_c1"]
    figures = {
        "ceiling_prompts": len(chosen),
        "ceiling_tau_b": ceiling,
        "ceiling_kendall_tau_b": reached,
        "ceiling_share": reached / ceiling,
        "second_sample_share_c1": possible,
        "share_of_second_sample_c1": bought / possible,
        **_interval(expected, first, second),
        **_by_group([prompts[index].group for index in chosen], expected, first, second),
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def _agreements(
    expected: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> tuple[float, float]:
    """tau_b of one answer against the other, and of the prediction against either, on average."""
    reached = (kendall_tau_b(expected, first) + kendall_tau_b(expected, second)) / 2
    return kendall_tau_b(first, second), reached


def _interval(
    expected: NDArray[np.float64], first: NDArray[np.float64], second: NDArray[np.float64]
) -> dict[str, float]:
    """Ends of the share's 95 % interval: the same prompts for ceiling and prediction in each draw."""
    draws = np.random.default_rng(0).integers(len(first), size=(_RESAMPLES, len(first)))
    taus = [_agreements(expected[drawn], first[drawn], second[drawn]) for drawn in draws]
    low, high = np.percentile([reached / ceiling for ceiling, reached in taus], _INTERVAL)
    return {"ceiling_share_low": low, "ceiling_share_high": high}


def _by_group(
    groups: Sequence[str],
    expected: NDArray[np.float64],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in dict.fromkeys(groups):
        own = np.array([group == name for group in groups])
        if FEWEST_PAIRS <= own.sum() < len(own):
            ceiling, reached = _agreements(expected[own], first[own], second[own])
            figures |= {f"ceiling_tau_b_{name}": ceiling, f"ceiling_share_{name}": reached / ceiling}
    return figures
