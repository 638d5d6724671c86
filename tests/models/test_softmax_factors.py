"""Output layers of low rank: the rank theorem, divergences as PyTorch computes them, and the parallelogram's law."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from underhood.models.softmax_factors import (
    centred,
    divergence,
    factor_weights,
    fitted,
    mixture_of_softmaxes,
    rank_tail,
    softmax_factors,
    weight_count,
)


@pytest.mark.parametrize("d", [1, 3, 7])
def test_rank_of_log_probabilities_is_d_plus_one_and_a_mixtures_is_not(d: int):
    single = softmax_factors(factor_weights(30, 20, d, seed=d))
    assert np.linalg.matrix_rank(single.numpy()) == d + 1
    mixed = mixture_of_softmaxes(factor_weights(30, 20, d, seed=d, parts=4))
    assert np.linalg.matrix_rank(mixed.numpy()) > d + 1
    for log_probs in (single, mixed):
        torch.testing.assert_close(log_probs.exp().sum(dim=1), torch.ones(30, dtype=torch.float64))


def test_divergence_matches_torch():
    target = torch.rand(5, 7, dtype=torch.float64).softmax(dim=1)
    log_probs = torch.rand(5, 7, dtype=torch.float64).log_softmax(dim=1)
    theirs = torch.nn.functional.kl_div(log_probs, target, reduction="batchmean")
    assert float(divergence(target, log_probs)) == pytest.approx(float(theirs))
    assert float(divergence(target, target.log())) == pytest.approx(0, abs=1e-12)


def test_tail_is_the_error_of_numpys_truncated_svd():
    log_probs = softmax_factors(factor_weights(12, 9, 6, seed=1))
    u, s, v = np.linalg.svd(centred(log_probs).numpy(), full_matrices=False)
    cut = (u[:, :4] * s[:4]) @ v[:4]
    assert rank_tail(log_probs, 4) == pytest.approx(np.linalg.norm(centred(log_probs).numpy() - cut))
    assert rank_tail(log_probs, 6) == pytest.approx(0, abs=1e-9)


def test_on_a_parallelogram_products_of_opposite_words_are_equal():
    weights = factor_weights(50, 4, 3, seed=2)
    a, b, base = weights["W"][:3]
    weights["W"] = torch.stack([base + a + b, base + a, base + b, base])
    p_NV = softmax_factors(weights).exp()
    torch.testing.assert_close(p_NV[:, 0] * p_NV[:, 3], p_NV[:, 1] * p_NV[:, 2])


def test_fitting_reaches_a_target_that_it_can_express_and_leaves_frozen_weights_alone():
    goal = factor_weights(10, 6, 2, seed=3)
    target = softmax_factors(goal).exp()
    start = factor_weights(10, 6, 2, seed=4)
    assert float(divergence(target, softmax_factors(fitted(softmax_factors, start, target, steps=200)))) < 1e-6
    only_H = fitted(softmax_factors, start | {"W": goal["W"]}, target, steps=100, trained=("H",))
    assert torch.equal(only_H["W"], goal["W"])
    assert weight_count(start) == 10 * 2 + 6 * 2
