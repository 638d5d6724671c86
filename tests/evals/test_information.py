"""Entropy, divergence and mutual information against SciPy, scikit-learn and the chain rule."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from sklearn.metrics import mutual_info_score

from underhood.evals.information import (
    conditional_entropy,
    cross_entropy,
    divergence,
    entropy,
    missing_bits,
    mutual_information,
)

TABLES = arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=st.integers(0, 50)).filter(np.any)


@given(TABLES)
def test_entropy_and_divergence_match_scipy(table: np.ndarray):
    p, q = table.ravel(), table.ravel()[::-1] + 1
    assert math.isclose(entropy(p), stats.entropy(p, base=2), abs_tol=1e-12)
    assert math.isclose(divergence(p, q), stats.entropy(p, q, base=2), abs_tol=1e-12)
    assert divergence(p, q) >= -1e-12


@given(TABLES)
def test_mutual_information_matches_scikit_learn_and_the_chain_rule(table: np.ndarray):
    actual = mutual_information(table)
    assert math.isclose(actual * math.log(2), mutual_info_score(None, None, contingency=table), abs_tol=1e-12)
    assert math.isclose(actual, mutual_information(table.T), abs_tol=1e-12)
    chain = entropy(table.sum(axis=1)) + conditional_entropy(table)
    assert math.isclose(entropy(table), chain, abs_tol=1e-12)


def test_cross_entropy_is_infinite_where_something_was_ruled_out():
    assert cross_entropy([1, 1], [1, 0]) == math.inf
    assert cross_entropy([1, 0], [1, 1]) == 1


@pytest.mark.parametrize(("p", "q"), [([], []), ([0, 0], [1, 1]), ([-1, 2], [1, 1]), ([1, 1], [1, 1, 1])])
def test_information_refuses_what_is_no_distribution(p: list[float], q: list[float]):
    with pytest.raises(ValueError, match="distribution"):
        cross_entropy(p, q)


def test_missing_bits_match_the_mean_of_many_samples():
    rng = np.random.default_rng(0)
    samples = rng.multinomial(200, np.full(8, 1 / 8), size=20_000)
    low = 3 - np.mean([entropy(sample) for sample in samples])
    assert abs(missing_bits(samples[0]) / low - 1) < 0.03
