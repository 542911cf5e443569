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


def ceiling_scores(
    probabilities: NDArray[np.float64], prompts: Sequence[LabelledPrompt], bins: LengthBins
) -> dict[str, float]:
    """Figures on the prompts that have two answers; none below 50 of them.

    ceiling_tau_b: tau_b between the two answers. ceiling_kendall_tau_b: of the prediction against either, on average.
    ceiling_share: the second by the first. second_sample_share_c1: share of the oracle's gain that the other answer
    buys as a prediction, 1 slot; share_of_second_sample_c1: the proxy's by that.
    """
    chosen = [index for index, prompt in enumerate(prompts) if len(prompt.samples) > 1]
    if len(chosen) < FEWEST_PAIRS:
        return {}
    cap = float(bins.edges[-2])
    pairs = np.array([[sample.tokens for sample in prompts[index].samples[:2]] for index in chosen], dtype=np.float64)
    first, second = np.minimum(pairs, cap).T
    expected = probabilities[chosen] @ np.minimum(bins.means, cap)
    ceiling = kendall_tau_b(first, second)
    reached = (kendall_tau_b(expected, first) + kendall_tau_b(expected, second)) / 2
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
    }
    return {name: round(float(value), 4) for name, value in figures.items()}
