"""Gradients of sigmoid layers against finite differences, and the net's shape."""

from __future__ import annotations

import numpy as np
import pytest

from underhood.path.lib.sigmoid_layers import activities, initial_layers, squared_error_gradients


@pytest.mark.parametrize("sizes", [(3, 2), (4, 3, 2), (5, 4, 3, 2)])
def test_gradients_match_central_differences(sizes: tuple[int, ...]):
    rng = np.random.default_rng(0)
    weights = initial_layers(sizes, rng)
    x, y = rng.random((7, sizes[0])), rng.random((7, sizes[-1]))

    def loss() -> float:
        return float(0.5 * ((activities(weights, x)[-1] - y) ** 2).sum(axis=1).mean())

    gradients = squared_error_gradients(weights, activities(weights, x), y)
    for w, gradient in zip(weights, gradients, strict=True):
        for at in np.ndindex(w.shape):
            before = w[at]
            w[at] = before + 1e-5
            above = loss()
            w[at] = before - 1e-5
            assert gradient[at] == pytest.approx((above - loss()) / 2e-5, abs=1e-8)
            w[at] = before


def test_error_that_does_not_pass_back_moves_the_last_layer_only():
    rng = np.random.default_rng(1)
    weights = initial_layers((4, 3, 2), rng)
    x, y = rng.random((5, 4)), rng.random((5, 2))
    layers = activities(weights, x)
    stopped, whole = (squared_error_gradients(weights, layers, y, passes_back=back) for back in (False, True))
    assert not stopped[0].any()
    assert whole[0].any()
    np.testing.assert_array_equal(stopped[1], whole[1])
