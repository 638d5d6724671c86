"""t-SNE: its gradient, its widths, and maps as good as scikit-learn's exact ones."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.manifold import TSNE, _t_sne

from underhood.inspect.tsne import divergence, gradient, joint_probabilities, squared_distances, tsne


def blobs(per: int = 20, groups: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(6 * rng.normal(size=10), 1, (per, 10)) for _ in range(groups)])


def test_gradient_is_the_slope_of_the_divergence():
    rng = np.random.default_rng(1)
    joint = joint_probabilities(rng.normal(size=(12, 5)), 3.0)
    places = rng.normal(size=(12, 2))
    slopes = gradient(joint, places)
    for row, column in ((0, 0), (3, 1), (11, 0)):
        step = np.zeros_like(places)
        step[row, column] = 1e-5
        measured = (divergence(joint, places + step) - divergence(joint, places - step)) / 2e-5
        assert slopes[row, column] == pytest.approx(measured, rel=1e-5, abs=1e-8)


def test_joint_probabilities_have_the_perplexity_and_match_scikit_learn():
    points = blobs()
    joint = joint_probabilities(points, 10.0)
    assert joint.sum() == pytest.approx(1.0)
    np.testing.assert_allclose(joint, joint.T)
    theirs = _t_sne._joint_probabilities(squared_distances(points).astype(np.float32), 10.0, 0)
    full = np.zeros_like(joint)
    full[np.triu_indices(len(points), 1)] = theirs
    np.testing.assert_allclose(joint, full + full.T, atol=2e-6)


def test_map_keeps_neighbours_as_well_as_scikit_learns():
    points = blobs()
    ours = tsne(points, perplexity=10.0)
    peer = TSNE(perplexity=10.0, method="exact", init="pca", random_state=0).fit(points)
    assert divergence(joint_probabilities(points, 10.0), ours) <= peer.kl_divergence_ * 1.05
    groups = np.repeat(np.arange(5), 20)
    nearest = np.argsort(squared_distances(ours) + 1e9 * np.eye(100), axis=1)[:, :5]
    assert (groups[nearest] == groups[:, None]).mean() > 0.98


def test_same_points_give_the_same_map_and_too_few_are_refused():
    points = blobs(per=8)
    np.testing.assert_array_equal(tsne(points, perplexity=5, steps=60), tsne(points, perplexity=5, steps=60))
    with pytest.raises(ValueError, match="too few"):
        tsne(points, perplexity=30)
