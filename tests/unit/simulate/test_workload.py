from __future__ import annotations

import numpy as np
import pytest

from ssjf_tools.simulate.service import PAPER
from ssjf_tools.simulate.sources import Population, synthetic
from ssjf_tools.simulate.workload import ArrivalProcess, draw, rate_for_load


def population(size: int = 3, **columns: object) -> Population:
    lengths = np.arange(1.0, size + 1)
    return Population(lengths, lengths * 10, {"p": lengths * 2}, **columns)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("process", "variation"),
    [
        (ArrivalProcess("poisson", 4.0), 1.0),
        (ArrivalProcess("gamma", 4.0, cv=3.0), 3.0),
        (ArrivalProcess("gamma", 4.0, cv=0.5), 0.5),
        (ArrivalProcess("uniform", 4.0), 3**-0.5),
    ],
)
def test_gaps_have_the_rate_and_the_variation(process: ArrivalProcess, variation: float) -> None:
    gaps = np.diff(draw(population(), process, 40_000, 0).arrival_s)
    assert gaps.mean() == pytest.approx(0.25, rel=0.06)
    assert gaps.std() / gaps.mean() == pytest.approx(variation, rel=0.06)
    assert (gaps >= 0).all()


def test_per_second_arrivals_are_counts_at_full_seconds() -> None:
    times = draw(population(), ArrivalProcess("per-second", 4.0), 40_000, 0).arrival_s
    assert (times == np.rint(times)).all()
    counts = np.bincount(times.astype(int))[:-1]
    assert counts.mean() == pytest.approx(4.0, rel=0.03)
    assert counts.var() == pytest.approx(4.0, rel=0.06)


def test_burst_is_all_at_once() -> None:
    assert not draw(population(), ArrivalProcess("burst"), 50, 0).arrival_s.any()


def test_trace_times_are_kept_scaled_repeated_or_stretched_to_a_rate() -> None:
    source = population(arrival_s=np.array([0.0, 1.0, 4.0]), ordered=True)
    assert draw(source, ArrivalProcess("trace"), 3, 0).arrival_s.tolist() == [0, 1, 4]
    assert draw(source, ArrivalProcess("trace", time_scale=2.0), 3, 0).arrival_s.tolist() == [0, 2, 8]
    repeated = draw(source, ArrivalProcess("trace"), 5, 0)
    assert repeated.arrival_s.tolist() == [0, 1, 4, 6, 7]  # the period is 4 and a mean gap of 2
    assert repeated.output_tokens.tolist() == [1, 2, 3, 1, 2]
    stretched = draw(source, ArrivalProcess("trace", rate=0.5), 3, 0)
    assert stretched.arrival_s.tolist() == [0, 1.5, 6]


def test_requests_are_drawn_with_replacement_and_stay_whole() -> None:
    drawn = draw(population(100), ArrivalProcess("burst"), 5000, 3)
    assert len(np.unique(drawn.output_tokens)) == 100
    assert np.array_equal(drawn.prompt_tokens, drawn.output_tokens * 10)
    assert np.array_equal(drawn.predicted["p"], drawn.output_tokens * 2)


def test_a_seed_gives_the_same_requests_and_another_seed_others() -> None:
    process = ArrivalProcess("poisson", 1.0)
    first, again, other = (draw(population(100), process, 50, seed) for seed in (1, 1, 2))
    assert np.array_equal(first.arrival_s, again.arrival_s)
    assert np.array_equal(first.output_tokens, again.output_tokens)
    assert not np.array_equal(first.output_tokens, other.output_tokens)


def test_rate_for_load_is_what_the_slots_can_do() -> None:
    assert rate_for_load(population(3), PAPER, slots=4, load=0.5) == pytest.approx(0.5 * 4 / (0.1 + 0.02 * 2))


def test_rates_are_needed_where_arrivals_are_drawn() -> None:
    with pytest.raises(ValueError, match="need a rate"):
        draw(population(), ArrivalProcess("poisson"), 3, 0)
    with pytest.raises(ValueError, match="arrival times"):
        draw(population(), ArrivalProcess("trace"), 3, 0)


def test_the_synthetic_mix_is_varied_and_its_predictor_noisy() -> None:
    source = synthetic(0.6, 0)
    lengths = source.output_tokens
    assert lengths.min() >= 1
    assert lengths.max() <= 2048
    assert 1.0 < lengths.std() / lengths.mean() < 2.0
    assert not np.array_equal(source.predicted["noisy"], lengths)
