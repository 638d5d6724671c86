"""GRPO's advantages and losses against loops and closed forms."""

from __future__ import annotations

import pytest
import torch
from sampled_answers import batch, random_NT
from torch import Tensor

from underhood.align.grpo import advantages_of, group_advantages, grpo_loss, rloo_advantages
from underhood.align.policy_specs import GRPOSpec

MASK = batch(rows=8).response_mask_NT
LENGTHS = MASK.sum(dim=1).tolist()
LONGEST = 9


def case() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    old = random_NT(MASK, 1)
    logp = (old + random_NT(MASK, 2, scale=0.3)).requires_grad_(True)
    advantages_N = torch.randn(8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return logp, old, advantages_N, old + random_NT(MASK, 4, scale=0.5)


def loop_loss(spec: GRPOSpec) -> float:
    logp, old, advantages_N, ref = (each.detach() for each in case())
    total = 0.0
    for n, t in MASK.nonzero().tolist():
        ratio, advantage = float(torch.exp(logp[n, t] - old[n, t])), float(advantages_N[n])
        clipped = min(max(ratio, 1 - spec.clip_low), 1 + spec.clip_high)
        log_ratio = ref[n, t] - logp[n, t]
        loss = -min(ratio * advantage, clipped * advantage) + spec.beta * float(log_ratio.exp() - log_ratio - 1)
        weight = {
            "sequence": 1 / (8 * LENGTHS[n]),
            "local-token": 1 / sum(LENGTHS),
            "global-token": 1 / sum(LENGTHS),
            "dr-grpo": 1 / (8 * LONGEST),
        }[spec.normaliser]
        total += weight * loss
    return total


@pytest.mark.parametrize("normaliser", ["sequence", "local-token", "global-token", "dr-grpo"])
def test_grpo_loss_matches_a_loop(normaliser: str):
    spec = GRPOSpec(normaliser=normaliser, clip_low=0.2, clip_high=0.28, beta=0.1)  # type: ignore[arg-type]
    logp, old, advantages_N, ref = case()
    loss = grpo_loss(logp, old, advantages_N, MASK, spec=spec, ref_logp_NT=ref, max_new_tokens=LONGEST)
    assert float(loss) == pytest.approx(loop_loss(spec), abs=1e-12)


@pytest.mark.parametrize("normaliser", ["sequence", "global-token", "dr-grpo"])
def test_micro_batches_sum_to_the_update(normaliser: str):
    spec = GRPOSpec(normaliser=normaliser, beta=0.1)  # type: ignore[arg-type]
    logp, old, advantages_N, ref = case()
    whole = grpo_loss(logp, old, advantages_N, MASK, spec=spec, ref_logp_NT=ref, max_new_tokens=LONGEST)
    halves = sum(
        grpo_loss(
            logp[rows],
            old[rows],
            advantages_N[rows],
            MASK[rows],
            spec=spec,
            ref_logp_NT=ref[rows],
            max_new_tokens=LONGEST,
            global_rows=8,
            global_tokens=float(MASK.sum()),
        )
        for rows in (slice(0, 3), slice(3, 8))
    )
    assert float(halves) == pytest.approx(float(whole), abs=1e-12)


def test_local_token_means_of_micro_batches_do_not_sum_to_the_updates():
    """The bias of the local normaliser: tokens of a micro-batch with short answers weigh more."""
    spec = GRPOSpec(normaliser="local-token", beta=0.0)
    logp, old, advantages_N, _ = case()
    whole = float(grpo_loss(logp, old, advantages_N, MASK, spec=spec))
    halves = sum(
        float(grpo_loss(logp[rows], old[rows], advantages_N[rows], MASK[rows], spec=spec, global_rows=8))
        for rows in (slice(0, 3), slice(3, 8))
    )
    assert abs(halves - whole) > 1e-3


def test_sequence_mean_with_one_update_has_loss_zero_and_a_gradient_that_is_not():
    _, old, _, _ = case()
    logp = old.clone().requires_grad_(True)
    rewards_PG = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 1]], dtype=torch.float64)
    advantages_N = group_advantages(rewards_PG).flatten()
    loss = grpo_loss(logp, old, advantages_N, MASK, spec=GRPOSpec(beta=0.0))
    assert float(loss) == pytest.approx(0, abs=1e-12)
    [gradient] = torch.autograd.grad(loss, logp)
    expected = torch.where(MASK, -advantages_N[:, None] / MASK.sum(dim=1, keepdim=True) / 8, 0.0)
    assert torch.allclose(gradient, expected, atol=1e-12)
    assert float(gradient.abs().max()) > 0.01


def test_group_advantages_use_the_bessel_corrected_deviation():
    rewards = torch.tensor([[1.0, 0.0, 0.0, 0.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    advantages = group_advantages(rewards)
    assert float(advantages[0, 0]) == pytest.approx(0.75 / (0.5 + 1e-4))  # variance (0.75² + 3 · 0.25²) / 3
    assert not advantages[1].any()
    assert float(group_advantages(rewards, scale_std=False)[0, 0]) == 0.75


def test_leave_one_out_is_the_centred_reward_times_g_over_g_minus_1():
    rewards = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    advantages = rloo_advantages(rewards)
    for p in range(5):
        for g in range(4):
            others = [float(rewards[p, i]) for i in range(4) if i != g]
            assert float(advantages[p, g]) == pytest.approx(float(rewards[p, g]) - sum(others) / 3, abs=1e-12)
    assert torch.allclose(advantages, group_advantages(rewards, scale_std=False) * 4 / 3, atol=1e-12)
    assert torch.equal(advantages_of(rewards, GRPOSpec(baseline="rloo")), advantages)
    with pytest.raises(ValueError, match="at least 2 answers"):
        rloo_advantages(rewards[:, :1])


def test_what_a_loss_needs_is_asked_for():
    logp, old, advantages_N, _ = case()
    with pytest.raises(ValueError, match="needs the reference"):
        grpo_loss(logp, old, advantages_N, MASK, spec=GRPOSpec(beta=0.1))
    with pytest.raises(ValueError, match="max_new_tokens"):
        grpo_loss(logp, old, advantages_N, MASK, spec=GRPOSpec(beta=0.0, normaliser="dr-grpo"))
