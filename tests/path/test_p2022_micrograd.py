"""The demo's points are scikit-learn's."""

from __future__ import annotations

import numpy as np
from sklearn.datasets import make_moons

from underhood.path.lib.half_moons import DEMO_SEED, draw


def test_half_moons_match_scikit_learns():
    x, y, weights = draw(DEMO_SEED)
    points, labels = make_moons(n_samples=100, noise=0.1, random_state=DEMO_SEED)
    np.testing.assert_allclose(x, points, atol=1e-12)
    assert (y[:, 0] == 2 * labels - 1).all()
    assert [weight.shape for weight in weights] == [(2, 16), (1, 16), (16, 16), (1, 16), (16, 1), (1, 1)]
