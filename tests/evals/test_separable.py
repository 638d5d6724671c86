"""Separation against linear programming, its proofs against their own definition, and Cover's count by trying all."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from scipy.optimize import linprog

from underhood.evals.separable import separable_labellings, separation


@pytest.mark.parametrize("seed", range(60))
def test_separation_matches_linear_programming_and_proves_itself(seed: int):
    rng = np.random.default_rng(seed)
    k = int(rng.integers(1, 15))
    n = int(rng.integers(1, 4 * k + 2))
    x, y = rng.standard_normal((n, k)), rng.choice((-1.0, 1.0), n)
    actual, proof = separation(x, y)
    theirs = linprog(np.zeros(k), A_ub=-(x * y[:, None]), b_ub=-np.ones(n), bounds=(None, None))
    assert actual == (theirs.status == 0)
    if actual:
        assert (y * (x @ proof) > 0).all()
    else:
        assert proof.min() >= 0
        assert proof.sum() > 0.5
        lengths = np.linalg.norm(x, axis=1)
        np.testing.assert_allclose((proof * y / lengths) @ x, 0, atol=1e-5)


@pytest.mark.parametrize(("points", "weights"), [(3, 2), (5, 2), (5, 3), (7, 3), (4, 6)])
def test_covers_count_matches_all_labellings(points: int, weights: int):
    x = np.random.default_rng(points).standard_normal((points, weights))
    learnt = sum(separation(x, np.array(y))[0] for y in product((-1.0, 1.0), repeat=points))
    assert separable_labellings(points, weights) == learnt


def test_xor_is_not_separable_and_and_is():
    x = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=float)
    assert not separation(x, np.array([-1.0, 1, 1, -1]))[0]
    assert separation(x, np.array([-1.0, -1, -1, 1]))[0]


def test_separation_refuses_other_labels():
    with pytest.raises(ValueError, match="label"):
        separation(np.ones((2, 2)), np.array([0.0, 1.0]))
