from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ssjf_tools.proxy.bins import LengthBins, fit_bins, log_edges
from ssjf_tools.proxy.crossval import cross_validate, fold_indices, select
from ssjf_tools.proxy.data import FlatLabels, LabelledPrompt, Sample
from ssjf_tools.proxy.fit import FitSettings, Inputs, Lesson, average_views, fit_head, soft_targets
from ssjf_tools.proxy.grams import gram_rows
from ssjf_tools.proxy.head import Head, HeadError
from ssjf_tools.proxy.metrics import (
    accuracy_and_macro_f1,
    calibration_error,
    kendall_tau_b,
    log_loss,
    pairwise_accuracy,
    quantile_coverage,
)
from ssjf_tools.proxy.scores import score

CAP = 256


def made_up(count: int, seed: int) -> tuple[NDArray[np.float64], FlatLabels]:
    """Features of which the first two decide a log-normal length, cut at CAP; the other 30 are noise."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(count, 32))
    log_length = 3.5 + features[:, 0] + 0.5 * features[:, 1] + rng.normal(0, 0.4, count)
    tokens = np.clip(np.exp(log_length).round(), 1, None).astype(np.int64)
    return features, FlatLabels(np.arange(count), np.minimum(tokens, CAP), tokens >= CAP)


def fitted(
    features: NDArray[np.float64], labels: FlatLabels, bins: LengthBins, settings: FitSettings | None = None
) -> Head:
    return fit_head(Inputs(features), np.arange(len(features)), labels, bins, settings or FitSettings())


def test_edges_are_whole_tokens_log_spaced_and_end_open() -> None:
    edges = log_edges(1024, 32)
    assert edges[0] == 1
    assert edges[-2:].tolist() == [1024, 4096]
    assert (np.diff(edges) >= 1).all()
    assert (edges == np.round(edges)).all()
    wide = edges[:-1][edges[:-1] > 50]
    assert np.abs(wide[1:] / wide[:-1] / 1024 ** (1 / 32) - 1).max() < 0.02


def test_bin_means_come_from_the_lengths_and_the_open_bin_from_how_seldom_they_end() -> None:
    tokens = np.array([1, 1, 40, 42, 200, 256, 256], np.int64)
    censored = np.array([False] * 5 + [True] * 2)
    bins = fit_bins(CAP, 8, tokens, censored)
    place = bins.index(tokens, censored)
    assert bins.means[place[2]] == 41
    assert place[-1] == bins.count - 1
    # In the last octave (above 128): three answers lived 72 + 128 + 128 tokens and one ended.
    assert bins.means[-1] == min(256 + 328, 2 * 256)


def test_an_answer_cut_before_the_cap_lies_in_its_bin_or_above() -> None:
    bins = LengthBins(np.array([1.0, 4, 16, 64]), np.array([2.0, 8, 30]))
    tokens, censored = np.array([9, 9, 16, 20]), np.array([True, False, True, False])
    assert bins.index(tokens, censored).tolist() == [1, 1, 2, 2]
    assert bins.cut_early(tokens, censored).tolist() == [True, False, False, False]
    with pytest.raises(ValueError, match="length 0; expected at least 1"):
        bins.index(np.array([0]), np.array([False]))


def test_an_early_cut_gets_the_shares_of_the_bins_from_there_on() -> None:
    bins = LengthBins(np.array([1.0, 4, 16, 64]), np.array([2.0, 8, 30]))
    # Ended: two in bin 0, one in bin 1, three in bin 2. One was cut at 5 tokens, in bin 1.
    tokens = np.array([2, 2, 8, 20, 20, 20, 5])
    labels = FlatLabels(np.arange(7), tokens, np.array([False] * 6 + [True]))
    targets = soft_targets(labels, bins, 1e-3)
    assert targets[:6].argmax(axis=1).tolist() == [0, 0, 1, 2, 2, 2]
    # Kaplan-Meier: of those at risk in bin 1 without the cut one (4), one ended there; the rest later.
    assert targets[6].tolist() == pytest.approx([0, 0.25, 0.75])


def test_cutting_answers_early_does_not_make_them_look_short() -> None:
    features, labels = made_up(1000, seed=4)
    bins = fit_bins(CAP, 12, labels.tokens, labels.censored)
    # A third of the clients ask for at most 20 tokens.
    limit = np.where(np.random.default_rng(0).random(1000) < 1 / 3, 20, CAP)
    cut = FlatLabels(labels.prompt, np.minimum(labels.tokens, limit), labels.censored | (labels.tokens > limit))
    whole_mean, cut_mean = (
        float((fitted(features, some, bins).probabilities(features) @ bins.means).mean()) for some in (labels, cut)
    )
    taken_as_ends = FlatLabels(cut.prompt, cut.tokens, cut.censored & (cut.tokens >= CAP))
    naive = fitted(features, taken_as_ends, bins).probabilities(features) @ bins.means
    assert abs(cut_mean / whole_mean - 1) < 0.15
    assert float(naive.mean()) / whole_mean < 0.8


def test_the_fit_ranks_and_is_calibrated_on_prompts_it_never_saw() -> None:
    features, labels = made_up(1200, seed=1)
    bins = fit_bins(CAP, 12, labels.tokens, labels.censored)
    head = fitted(features[:800], select(labels, np.arange(800)), bins, FitSettings(smoothing=0.05))
    probabilities = head.probabilities(features[800:])
    held = select(labels, np.arange(800, 1200))
    place = bins.index(held.tokens, held.censored)
    assert np.abs(probabilities.sum(axis=1) - 1).max() < 1e-9
    assert kendall_tau_b(probabilities @ bins.means, held.tokens.astype(float)) > 0.65
    assert calibration_error(probabilities, place) < 0.05
    base = np.tile(np.bincount(place, minlength=bins.count) / len(place), (len(place), 1))
    assert log_loss(probabilities, place) < log_loss(base, place) - 0.5
    for level in (0.1, 0.5, 0.9):
        assert abs(quantile_coverage(probabilities, place, level, np.random.default_rng(0)) - level) < 0.06


def test_several_samples_of_a_prompt_are_averaged_not_counted_as_prompts() -> None:
    features, labels = made_up(100, seed=2)
    bins = fit_bins(CAP, 12, labels.tokens, labels.censored)
    twice = FlatLabels(np.repeat(labels.prompt, 2), np.repeat(labels.tokens, 2), np.repeat(labels.censored, 2))
    once_fitted = fitted(features, labels, bins).probabilities(features)
    twice_fitted = fitted(features, twice, bins).probabilities(features)
    assert np.abs(once_fitted - twice_fitted).max() < 1e-4


def test_tau_b_against_values_worked_by_hand() -> None:
    assert kendall_tau_b(np.array([1.0, 2, 3]), np.array([2.0, 4, 9])) == 1
    assert kendall_tau_b(np.array([1.0, 2, 3]), np.array([3.0, 2, 1])) == -1
    # Pairs: one tied in x, five others; 4 concordant, 1 discordant -> 3 / sqrt(5 * 6).
    assert kendall_tau_b(np.array([1.0, 1, 2, 3]), np.array([1.0, 2, 4, 3])) == pytest.approx(3 / math.sqrt(30))
    assert math.isnan(kendall_tau_b(np.ones(3), np.arange(3.0)))


def test_pairwise_accuracy_counts_ties_half() -> None:
    assert pairwise_accuracy(np.array([1.0, 1, 2]), np.array([1.0, 2, 3])) == pytest.approx(2.5 / 3)
    assert pairwise_accuracy(np.array([5.0, 1]), np.array([1.0, 2])) == 0


@settings(max_examples=30)
@given(st.integers(0, 10**6))
def test_tau_b_is_unchanged_by_order_of_rows_and_monotone_maps(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, 8, 600).astype(float), rng.integers(0, 8, 600).astype(float)
    order = rng.permutation(600)
    tau = kendall_tau_b(left, right)
    assert tau == pytest.approx(kendall_tau_b(right[order], np.exp(left[order])), abs=1e-12)


def test_folds_are_a_partition_and_nobody_is_scored_by_a_fit_that_saw_him() -> None:
    assert sorted(np.concatenate(fold_indices(103, 5, seed=3)).tolist()) == list(range(103))

    def fit(train: NDArray[np.int64], held: NDArray[np.int64]) -> NDArray[np.float64]:
        assert not set(train) & set(held)
        assert len(train) + len(held) == 103
        return np.repeat(held[:, None], 2, axis=1).astype(np.float64)

    assert cross_validate(103, 2, 5, 3, fit)[:, 0].tolist() == list(range(103))


def test_figures_score_answers_as_cut_at_the_cap() -> None:
    bins = LengthBins(np.array([1.0, 10, 100, 400]), np.array([5.0, 50, 180]))
    prompts = [LabelledPrompt(str(n), "x", "", (Sample(n, n == 100),)) for n in (5, 50, 100)]
    perfect = score(np.eye(3), prompts, bins)
    assert perfect["kendall_tau_b"] == 1
    assert perfect["mae_tokens"] == 0
    assert perfect["log_loss"] == 0
    assert perfect["calibration_error"] == 0
    assert perfect["class3_accuracy"] == perfect["class5_macro_f1"] == 1


def test_macro_f1_weighs_classes_alike() -> None:
    accuracy, macro_f1 = accuracy_and_macro_f1(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    assert accuracy == 0.75
    assert macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)


def test_a_head_survives_saving_and_names_what_is_wrong(tmp_path: Path) -> None:
    ones = [np.ones(shape, np.float32) for shape in ((6, 2), (2,), (2, 3), (3,))]
    head = Head(ones[0], ones[1], ones[2], ones[3])
    head.save(tmp_path / "head.npz")
    assert Head.load(tmp_path / "head.npz").bins == 3
    with pytest.raises(HeadError, match=r"expand_bias has shape \(4,\); expected \(3,\)"):
        Head(head.reduce_weight, head.reduce_bias, head.expand_weight, np.ones(4, np.float32))
    with pytest.raises(HeadError, match="not finite"):
        Head(head.reduce_weight, head.reduce_bias, head.expand_weight, np.full(3, np.nan, np.float32))
    np.savez(tmp_path / "other.npz", x=np.ones(1))
    with pytest.raises(HeadError, match=r"other\.npz"):
        Head.load(tmp_path / "other.npz")


def test_a_feature_that_hardly_varied_in_training_cannot_blow_up_a_prediction() -> None:
    features, labels = made_up(300, seed=5)
    features[:, 5] = 1.0 + 1e-7 * features[:, 5]  # all but constant, as with prompts of one template
    bins = fit_bins(CAP, 12, labels.tokens, labels.censored)
    head = fitted(features, labels, bins)
    usual = head.probabilities(features) @ bins.means
    features[:, 5] += 0.01  # the noise of INT8, or another template
    shifted = head.probabilities(features) @ bins.means
    assert np.abs(shifted / usual - 1).max() < 0.1


def test_labels_without_a_cut_answer_give_a_head_of_ordinary_size() -> None:
    features, labels = made_up(300, seed=6)
    short = FlatLabels(labels.prompt, np.minimum(labels.tokens, CAP - 1), np.zeros(300, np.bool_))
    bins = fit_bins(CAP, 12, short.tokens, short.censored)
    head = fitted(features, short, bins)
    assert np.abs(head.reduce_weight).max() < 100
    assert np.abs(head.reduce_bias).max() < 100


def test_prompts_of_two_perfectly_separate_kinds_give_a_finite_head() -> None:
    rng = np.random.default_rng(7)
    long = np.arange(60) % 2 == 1
    features = rng.normal(0, 0.01, (60, 16)) + long[:, None] * np.linspace(-1, 1, 16)
    tokens = np.where(long, 300, 3) + np.arange(60)
    labels = FlatLabels(np.arange(60), tokens, np.zeros(60, np.bool_))
    bins = fit_bins(int(tokens.max()), 8, tokens, labels.censored)
    head = fitted(features, labels, bins, FitSettings(ridge=5.0))
    assert np.abs(head.expand_bias).max() < 100
    expected = head.probabilities(features) @ bins.means
    assert expected[long].min() > expected[~long].max()


def test_a_lesson_about_unmeasured_prompts_improves_a_head_from_few_noisy_labels() -> None:
    rng = np.random.default_rng(8)
    features = rng.normal(size=(700, 64))
    truth = 3.5 + features[:, :8].sum(axis=1) / 3
    tokens = np.clip(np.exp(truth + rng.normal(0, 1.0, 700)).round(), 1, CAP - 1).astype(np.int64)
    bins = fit_bins(CAP, 12, tokens, np.zeros(700, np.bool_))
    chosen, others, held = np.split(np.arange(700), [100, 400])
    labels = FlatLabels(np.arange(100), tokens[:100], np.zeros(100, np.bool_))
    exact = FlatLabels(np.arange(700), np.exp(truth).clip(1, CAP - 1).astype(np.int64), np.zeros(700, np.bool_))
    views = average_views(exact, bins, 700)
    lesson = Lesson(views[chosen], views[others], others)
    alone, taught = (fit_head(Inputs(features), chosen, labels, bins, FitSettings(), own) for own in (None, lesson))
    tau_alone, tau_taught = (
        kendall_tau_b(head.probabilities(features[held]) @ bins.means, truth[held]) for head in (alone, taught)
    )
    assert tau_taught > tau_alone + 0.1


def test_n_grams_tell_what_the_features_do_not() -> None:
    rng = np.random.default_rng(9)
    kinds = rng.integers(0, 2, 200)
    rows = [np.array([2, 10 + kind, *rng.integers(20, 90, 5), 3], np.int32) for kind in kinds]
    tokens = np.where(kinds == 1, 200, 5) + rng.integers(0, 4, 200)
    labels = FlatLabels(np.arange(200), tokens, np.zeros(200, np.bool_))
    bins = fit_bins(CAP, 12, tokens, labels.censored)
    grams = gram_rows(rows, vocabulary=100)
    inputs = Inputs(rng.normal(size=(200, 8)), grams, grams.kernel())
    head = fit_head(inputs, np.arange(150), select(labels, np.arange(150)), bins, FitSettings())
    expected = head.probabilities(inputs.features, grams.sums(head.grams)) @ bins.means
    assert expected[150:][kinds[150:] == 1].min() > expected[150:][kinds[150:] == 0].max()
