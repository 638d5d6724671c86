"""Random directions against SciPy's beta distribution, and projections against scikit-learn's bound and matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import pdist
from sklearn.random_projection import johnson_lindenstrauss_min_dim

from underhood.evals.directions import (
    cosines,
    distances,
    distortion,
    enough_dimensions,
    mean_cosine,
    projected,
    random_directions,
    share_beyond,
    until_close,
)


@pytest.mark.parametrize("d", [3, 4, 10, 100, 12_288])
@pytest.mark.parametrize("cosine", [0.0, 0.02, 0.3, 0.9])
def test_share_beyond_matches_scipys_beta(d: int, cosine: float):
    """The square of the cosine has the distribution Beta(1/2, (d − 1)/2)."""
    theirs = stats.beta.sf(cosine**2, 0.5, (d - 1) / 2)
    assert math.isclose(share_beyond(d, cosine), theirs, rel_tol=1e-4, abs_tol=1e-300)


@pytest.mark.parametrize("d", [2, 3, 64, 12_288])
def test_mean_cosine_matches_scipys_beta(d: int):
    theirs = stats.beta(0.5, (d - 1) / 2).expect(np.sqrt) if d < 1000 else math.sqrt(2 / (math.pi * d))
    assert math.isclose(mean_cosine(d), theirs, rel_tol=1e-3)


def test_directions_are_drawn_from_that_distribution():
    actual = np.abs(cosines(random_directions(200, 20, np.random.default_rng(0))))
    assert len(actual) == 200 * 199 // 2
    assert stats.kstest(actual**2, stats.beta(0.5, 9.5).cdf).statistic < 0.015


def test_until_close_matches_the_birthday_problem():
    rng = np.random.default_rng(0)
    actual = np.mean([until_close(40, 0.5, rng) for _ in range(400)])
    expected = math.sqrt(math.pi / (2 * share_beyond(40, 0.5))) + 2 / 3  # the birthday problem
    assert abs(actual / expected - 1) < 0.1


def test_until_close_gives_up_at_the_most():
    assert until_close(1000, 0.9, np.random.default_rng(0), most=40) == 40


def test_enough_dimensions_is_no_less_strict_than_scikit_learns_bound_for_squares():
    """Theirs keeps squared distances within 1 ± ε, and squares are off by twice as much."""
    for n, error in ((100, 0.1), (10_000, 0.2)):
        assert enough_dimensions(n, error) >= 0.8 * johnson_lindenstrauss_min_dim(n, eps=2 * error)


def test_projection_keeps_distances_and_distances_match_scipy():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 3000)) * np.geomspace(1, 1e-3, 3000)
    np.testing.assert_allclose(distances(x), pdist(x), rtol=1e-9)
    assert distortion(x, x) == 0
    assert distortion(x, projected(x, enough_dimensions(60, 0.3), rng)) < 0.3
    assert distortion(x, projected(x, 3, rng)) > 0.3
