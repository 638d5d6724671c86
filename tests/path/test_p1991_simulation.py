"""Exact shares of first digits against SciPy's gamma distribution, and the gap against its Kolmogorov test."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from underhood.path.p1991_simulation.run import exact_digits, first_digits, gap


@pytest.mark.parametrize("k", range(1, 7))
def test_first_digits_of_products_match_scipys_gamma(k: int):
    lengths, d = np.arange(1, 60)[:, None] * np.log(10), np.arange(1, 10)
    theirs = (stats.gamma.cdf(lengths - np.log(d), k) - stats.gamma.cdf(lengths - np.log(d + 1), k)).sum(axis=0)
    np.testing.assert_allclose(exact_digits(k), theirs, atol=1e-12)


def test_first_digits_are_read_off():
    actual = first_digits(np.array([1.0, 19, 0.2, 0.0035, 9.99, 123456]))
    np.testing.assert_allclose(actual * 6, [3, 1, 1, 0, 0, 0, 0, 0, 1])


def test_gap_matches_scipys_kolmogorov_test():
    x = np.random.default_rng(0).exponential(size=5000) - 1
    assert abs(gap(x) - stats.kstest(x, "norm").statistic) < 1e-9
