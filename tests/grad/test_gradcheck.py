"""Central differences against closed forms, against torch's own check."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from underhood.grad.check import best_step, central, forward, gradient_error, relative_error


def test_central_differences_match_the_closed_form():
    x = np.random.default_rng(0).standard_normal((3, 4))
    f = lambda x: float((np.sin(x) * x[0]).sum())  # noqa: E731
    expected = np.cos(x) * x[0]
    expected[0] += np.sin(x).sum(axis=0)
    assert relative_error(central(f, x), expected) < 1e-9
    assert 1e-9 < relative_error(forward(f, x, 1e-8), expected) < 1e-6


def test_central_differences_do_not_change_the_point():
    x = np.array([1.0, -1e3, 0.0])
    kept = x.copy()
    np.testing.assert_allclose(central(lambda x: float((x * x).sum()), x), 2 * x, rtol=1e-5, atol=1e-5)
    assert np.array_equal(x, kept)


def test_best_step_is_the_cube_root_of_the_precision():
    assert best_step() == pytest.approx(6.055e-6, rel=1e-3)
    assert best_step(float(np.finfo(np.float32).eps)) == pytest.approx(4.92e-3, rel=1e-3)


def test_gradient_error_agrees_with_torch_gradcheck():
    """A right gradient passes both, one that is 1 % off passes neither."""
    x = np.random.default_rng(1).standard_normal(5)
    theirs = torch.tensor(x, requires_grad=True)

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, *gradients):
            return gradients[0] * ctx.saved_tensors[0].cos() * 1.01

    f = lambda arrays: float(np.sin(arrays[0]).sum())  # noqa: E731
    assert gradient_error(f, [np.cos(x)], [x]) < 1e-9
    assert gradient_error(f, [np.cos(x) * 1.01], [x]) > 1e-3
    assert torch.autograd.gradcheck(torch.sin, (theirs,))
    assert not torch.autograd.gradcheck(Wrong.apply, (theirs,), raise_exception=False)


def test_relative_error_never_passes_a_nan_or_another_shape():
    assert relative_error(np.array([np.nan]), np.array([1.0])) == float("inf")
    with pytest.raises(ValueError, match="shapes"):
        relative_error(np.zeros(2), np.zeros(3))
