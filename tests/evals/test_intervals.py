"""Intervals against closed forms, statsmodels-free: published values, the normal limit, scipy's bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from underhood.evals.intervals import (
    Interval,
    bootstrap_mean,
    bootstrap_ratio,
    paired_ratio,
    verdict,
    wilson,
)


@pytest.mark.parametrize(("successes", "trials"), [(0, 10), (1, 10), (81, 263), (15, 148), (29, 29), (500, 1000)])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_wilson_interval_matches_scipy(successes, trials, level):
    expected = stats.binomtest(successes, trials).proportion_ci(level, method="wilson")
    got = wilson(successes, trials, level=level)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert (got.value, got.n, got.level) == (successes / trials, trials, level)


def test_wilson_ends_solve_the_score_equation():
    # The interval's ends are the p at which |p̂ − p| is exactly z standard errors *of p*.
    got, z = wilson(7.5, 40), stats.norm.ppf(0.975)
    for end in (got.low, got.high):
        assert abs(got.value - end) == pytest.approx(z * math.sqrt(end * (1 - end) / 40))


def test_wilson_refuses_what_is_no_proportion():
    for successes, trials in ((0, 0), (-1, 5), (6, 5)):
        with pytest.raises(ValueError, match="proportion"):
            wilson(successes, trials)


def test_bootstrap_mean_matches_the_normal_interval_and_scipy():
    values = np.random.default_rng(0).gamma(2.0, size=400)
    got = bootstrap_mean(values)
    half = stats.norm.ppf(0.975) * values.std() / math.sqrt(len(values))
    assert got.value == pytest.approx(values.mean())
    assert (got.low, got.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.15 * half)
    peer = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    assert got.low == pytest.approx(peer.confidence_interval.low, abs=0.1 * half)
    assert got.high == pytest.approx(peer.confidence_interval.high, abs=0.1 * half)


def test_bootstrap_mean_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(3)
    covered = sum(
        not bootstrap_mean(generator.exponential(size=60), resamples=500, seed=seed).excludes(1.0)
        for seed in range(300)
    )
    assert 0.88 <= covered / 300 <= 0.98


def test_bootstrap_ratio_draws_documents_not_bytes():
    generator = np.random.default_rng(1)
    rates, sizes = generator.normal(2.0, 0.5, size=50).clip(0.5), generator.integers(100, 10_000, size=50)
    got = bootstrap_ratio(rates * sizes, sizes)
    assert got.value == pytest.approx((rates * sizes).sum() / sizes.sum())
    # Linearised variance of a ratio of sums (delta method), documents as units.
    residual = rates * sizes - got.value * sizes
    half = 1.96 * math.sqrt((residual**2).sum()) / sizes.sum()
    assert (got.value - got.low, got.high - got.value) == pytest.approx((half, half), rel=0.2)
    assert got == bootstrap_ratio(rates * sizes, sizes)  # the same seed, the same interval
    assert got != bootstrap_ratio(rates * sizes, sizes, seed=1)


def test_bootstrap_of_constants_is_a_point_and_of_one_item_knows_nothing():
    assert bootstrap_ratio([2.0, 4.0, 6.0], [1, 2, 3]) == Interval(2.0, 2.0, 2.0, 3)
    assert bootstrap_mean([3.0]) == Interval(3.0, -math.inf, math.inf, 1)
    assert verdict(bootstrap_mean([8.0]), higher_is_better=True) == "no difference"
    with pytest.raises(ValueError, match="at least one"):
        bootstrap_mean([])
    with pytest.raises(ValueError, match="sum to more than zero"):
        bootstrap_ratio([1.0, 1.0], [0, 0])


def test_paired_difference_finds_what_separate_intervals_hide():
    generator = np.random.default_rng(2)
    sizes = generator.integers(500, 5000, size=60)
    before = generator.normal(2.0, 0.6, size=60) * sizes  # documents differ widely …
    after = before - 0.03 * sizes * generator.uniform(0.5, 1.5, size=60)  # … but each one gets a little better
    first, two = bootstrap_ratio(before, sizes), bootstrap_ratio(after, sizes)
    assert two.high > first.low  # the ablation: without pairing the intervals overlap
    paired = paired_ratio((before, sizes), (after, sizes))
    assert paired.value == pytest.approx(two.value - first.value)
    assert verdict(paired, higher_is_better=False) == "helped"
    assert verdict(paired, higher_is_better=True) == "hurt"


def test_verdict_on_pure_noise_is_mostly_no_difference():
    generator = np.random.default_rng(4)
    output = [
        verdict(
            bootstrap_mean(generator.random(80) - generator.random(80), resamples=400, seed=seed), higher_is_better=True
        )
        for seed in range(150)
    ]
    assert output.count("no difference") >= 130


def test_paired_refuses_different_items():
    with pytest.raises(ValueError, match="as many items"):
        paired_ratio(([1.0, 2.0], [1, 1]), ([1.0], [1]))
