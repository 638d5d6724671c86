"""Made pairs: as rare as they say, and drawn from the shares that are returned."""

from __future__ import annotations

import numpy as np

from underhood.data.zipf import zipf_pairs


def test_zipf_pairs_are_drawn_from_the_shares_that_come_with_them():
    first, second, truth = zipf_pairs(20, (200, 1000), np.random.default_rng(0))
    assert first.shape == second.shape == (200, 1000)
    np.testing.assert_allclose(truth.sum(), 1)
    np.testing.assert_allclose(truth.sum(axis=1) * np.arange(1, 21), truth.sum(axis=1)[0])
    counted = np.zeros_like(truth)
    np.add.at(counted, (first.ravel(), second.ravel()), 1 / first.size)
    assert not counted[truth == 0].any()
    spread = np.sqrt(truth * (1 - truth) / first.size)
    assert (np.abs(counted - truth) < 5 * spread + 1e-12).all()
