"""All figures of a proxy's predictions, under the names of the JSON that scripts/eval-proxy writes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .bins import LengthBins
from .data import FlatLabels, LabelledPrompt, flatten
from .metrics import (
    accuracy_and_macro_f1,
    calibration_error,
    kendall_tau_b,
    log_loss,
    mean_absolute_error,
    pairwise_accuracy,
    quantile_coverage,
)
from .scheduling import oracle_shares

QUANTILES = (0.1, 0.5, 0.9)
# Borders between the paper's classes in tokens (Qiu et al. 2024, published predictions of the LMSYS test set).
CLASS_EDGES = {"class3": (141, 503), "class5": (42, 141, 294, 503)}


def score(probabilities: NDArray[np.float64], prompts: Sequence[LabelledPrompt], bins: LengthBins) -> dict[str, float]:
    """Quality of distributions [prompts, K] against the prompts' samples, for answers that are cut at the bins' cap."""
    labels = _scorable(flatten(prompts), bins)
    cap = float(bins.edges[-2])
    expected = (probabilities @ np.minimum(bins.means, cap))[labels.prompt]
    true = np.minimum(labels.tokens, cap).astype(np.float64)
    figures = {
        "kendall_tau_b": kendall_tau_b(expected, true),
        "pairwise_accuracy": pairwise_accuracy(expected, true),
        "mae_tokens": mean_absolute_error(expected, true),
        **_distribution_scores(probabilities[labels.prompt], labels, bins),
        **_class_scores(expected, true),
    }
    return {name: round(value, 4) for name, value in figures.items()}


def score_groups(
    probabilities: NDArray[np.float64], prompts: Sequence[LabelledPrompt], bins: LengthBins
) -> dict[str, float]:
    """`kendall_tau_b_<file>` for each file that prompts came from, where there are several (chat and tasks, say)."""
    names = [prompt.group for prompt in prompts]
    if len(set(names)) < 2:
        return {}
    cap = float(bins.edges[-2])
    expected = probabilities @ np.minimum(bins.means, cap)
    figures = {}
    for name in dict.fromkeys(names):
        chosen = np.array([index for index, own in enumerate(names) if own == name])
        labels = _scorable(flatten([prompts[index] for index in chosen]), bins)
        tau = kendall_tau_b(expected[chosen][labels.prompt], np.minimum(labels.tokens, cap).astype(np.float64))
        figures[f"kendall_tau_b_{name}"] = round(tau, 4)
    return figures


def score_scheduling(
    probabilities: NDArray[np.float64], prompts: Sequence[LabelledPrompt], bins: LengthBins
) -> dict[str, float]:
    """`oracle_share_c1`, `oracle_share_c8`: share of the oracle's mean-JCT gain at load 0.9; seconds of simulation."""
    labels = _scorable(flatten(prompts), bins)
    cap = float(bins.edges[-2])
    expected = (probabilities @ np.minimum(bins.means, cap))[labels.prompt]
    shares = oracle_shares(np.minimum(labels.tokens, cap).astype(np.float64), expected)
    return {name: round(value, 4) for name, value in shares.items()}


def _scorable(labels: FlatLabels, bins: LengthBins) -> FlatLabels:
    """Without the answers that were cut before the bins' cap: nobody knows how long they would have been."""
    keep = ~bins.cut_early(labels.tokens, labels.censored)
    return FlatLabels(labels.prompt[keep], labels.tokens[keep], labels.censored[keep])


def _distribution_scores(probabilities: NDArray[np.float64], labels: FlatLabels, bins: LengthBins) -> dict[str, float]:
    place = bins.index(labels.tokens, labels.censored)
    rng = np.random.default_rng(0)
    coverage = {
        f"coverage_p{round(level * 100)}": quantile_coverage(probabilities, place, level, rng) for level in QUANTILES
    }
    return {
        "log_loss": log_loss(probabilities, place),
        "calibration_error": calibration_error(probabilities, place),
        **coverage,
    }


def _class_scores(expected: NDArray[np.float64], true: NDArray[np.float64]) -> dict[str, float]:
    scores = {}
    for name, edges in CLASS_EDGES.items():
        accuracy, macro_f1 = accuracy_and_macro_f1(
            np.searchsorted(edges, expected, side="right"), np.searchsorted(edges, true, side="right")
        )
        scores[f"{name}_accuracy"], scores[f"{name}_macro_f1"] = accuracy, macro_f1
    return scores
