"""The perceptron's rule against scikit-learn's, and Novikoff's bound against a support vector machine's margin."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Perceptron
from sklearn.svm import SVC

from underhood.path.p1958_perceptron.run import XOR, XOR_Y, learn, separable, squares_and_circles


@pytest.mark.parametrize("seed", range(3))
def test_perceptron_weights_match_scikit_learn(seed: int):
    x, y, _ = separable(np.random.default_rng(seed), 0.1)
    ours, errors, _ = learn(x, y, sweeps=1000, moves=True, rng=np.random.default_rng(0))
    peer = Perceptron(fit_intercept=False, shuffle=False, tol=None, max_iter=len(errors), eta0=1.0).fit(x, y)
    np.testing.assert_allclose(ours, peer.coef_[0], atol=1e-9)
    assert errors[-1] == 0


def test_perceptron_keeps_novikoffs_bound_with_the_widest_margin_there_is():
    x, y, known = separable(np.random.default_rng(5), 0.1)
    _, errors, _ = learn(x, y, sweeps=1000, moves=True, rng=np.random.default_rng(0))
    machine = SVC(kernel="linear", C=1e8)
    padded, labels = np.vstack([x, -x]), np.concatenate([y, -y])  # symmetric, so that its plane goes through zero
    machine.fit(padded, labels)
    widest = 1 / np.linalg.norm(machine.coef_)
    assert widest >= known - 1e-6
    assert sum(errors) <= 1 / widest**2


def test_perceptron_goes_round_in_a_circle_on_xor():
    _, errors, period = learn(XOR, XOR_Y, sweeps=60, moves=True, rng=np.random.default_rng(0))
    assert min(errors) > 0
    assert period is not None
    assert errors[20 : 20 + period] == errors[20 + period : 20 + 2 * period]


def test_squares_and_circles_are_of_one_size():
    x, y = squares_and_circles(np.random.default_rng(0), 4000)
    ink = x.sum(axis=1)
    assert abs(ink[y > 0].mean() / ink[y < 0].mean() - 1) < 0.03
