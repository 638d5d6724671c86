"""Generalised advantage estimation against loops in float64 and torchrl; whitening against its definition."""

from __future__ import annotations

import pytest
import torch
from sampled_answers import batch, random_NT
from torch import Tensor

from underhood.align.gae import gae, whiten


def gae_by_definition(rewards_NT: Tensor, values_NT: Tensor, mask_NT: Tensor, gamma: float, lam: float) -> Tensor:
    """Σ_l (γλ)^l δ_{t+l}, the double sum of the paper's equation 16."""
    advantages_NT = torch.zeros_like(rewards_NT)
    for n, mask_T in enumerate(mask_NT):
        columns = mask_T.nonzero()[:, 0].tolist()
        values = [float(values_NT[n, t]) for t in columns] + [0.0]
        deltas = [float(rewards_NT[n, t]) + gamma * values[i + 1] - values[i] for i, t in enumerate(columns)]
        for i, t in enumerate(columns):
            advantages_NT[n, t] = sum((gamma * lam) ** (j - i) * deltas[j] for j in range(i, len(deltas)))
    return advantages_NT


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_gae_matches_the_double_sum(gamma: float, lam: float):
    mask_NT = batch(rows=8).response_mask_NT
    rewards_NT, values_NT = random_NT(mask_NT, 1), random_NT(mask_NT, 2)
    advantages_NT, returns_NT = gae(rewards_NT, values_NT, mask_NT, gamma, lam)
    expected_NT = gae_by_definition(rewards_NT, values_NT, mask_NT, gamma, lam)
    assert torch.allclose(advantages_NT, expected_NT, atol=1e-12)
    assert torch.allclose(returns_NT, (expected_NT + values_NT) * mask_NT, atol=1e-12)
    assert not advantages_NT[~mask_NT].any()


def test_gae_with_lambda_1_is_the_return_minus_the_value():
    mask_NT = batch(rows=8).response_mask_NT
    rewards_NT, values_NT = random_NT(mask_NT, 1), random_NT(mask_NT, 2)
    _, returns_NT = gae(rewards_NT, values_NT, mask_NT, 1.0, 1.0)
    for n, mask_T in enumerate(mask_NT):
        columns = mask_T.nonzero()[:, 0].tolist()
        for t in columns:
            assert float(returns_NT[n, t]) == pytest.approx(float(rewards_NT[n, t:].sum()), abs=1e-12)


def test_gae_matches_torchrl():
    from torchrl.objectives.value.functional import generalized_advantage_estimate

    generator = torch.Generator().manual_seed(0)
    rewards_NT = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    values_NT = torch.randn(3, 9, generator=generator, dtype=torch.float64)
    ended_NT = torch.zeros(3, 9, dtype=torch.bool)
    ended_NT[:, -1] = True
    next_NT = torch.cat([values_NT[:, 1:], torch.zeros(3, 1, dtype=torch.float64)], dim=1)
    expected_NT, returns_NT = generalized_advantage_estimate(
        0.97, 0.9, *(each[..., None] for each in (values_NT, next_NT, rewards_NT)), ended_NT[..., None]
    )
    ours = gae(rewards_NT, values_NT, torch.ones(3, 9, dtype=torch.bool), 0.97, 0.9)
    assert torch.allclose(ours[0], expected_NT[..., 0], atol=1e-6)  # it takes powers in fp32
    assert torch.allclose(ours[1], returns_NT[..., 0], atol=1e-6)


def test_whiten_scales_to_variance_1_over_the_masked_tokens():
    mask_NT = batch(rows=8).response_mask_NT
    values_NT = random_NT(mask_NT, 3, scale=5.0) + 2 * mask_NT
    whitened = whiten(values_NT, mask_NT)[mask_NT]
    assert float(whitened.mean()) == pytest.approx(0, abs=1e-9)
    assert float(whitened.var(unbiased=False)) == pytest.approx(1, abs=1e-6)
    kept = whiten(values_NT, mask_NT, shift_mean=False)[mask_NT]
    assert float(kept.mean()) == pytest.approx(float(values_NT[mask_NT].mean()), abs=1e-9)
    assert float(kept.var(unbiased=False)) == pytest.approx(1, abs=1e-6)
    assert float(whiten(values_NT, mask_NT, bessel=True)[mask_NT].var(unbiased=True)) == pytest.approx(1, abs=1e-6)
    assert not whiten(values_NT, mask_NT)[~mask_NT].any()
