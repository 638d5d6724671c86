"""Proximal policy optimisation for language models: settings, rewards per token, and losses (Schulman et al. 2017).

An answer's tokens are the actions. Its score comes with the last token; every token pays for leaving the reference:
``r_t = −β KL_t + [t = last] · score`` (Ziegler et al. 2019, equation 2; Ouyang et al. 2022, equation 2).
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from underhood.align.kl import ESTIMATORS, Estimator
from underhood.align.policy_specs import PPOSpec


def answer_scores(scores_N: Float[Tensor, "N"], finished_N: Bool[Tensor, "N"], spec: PPOSpec) -> Float[Tensor, "N"]:
    """Scores after clipping and the EOS trick: a fixed one for each answer that was cut off."""
    if spec.reward_clip is not None:
        scores_N = scores_N.clamp(-spec.reward_clip, spec.reward_clip)
    if spec.missing_end_reward is None:
        return scores_N
    return torch.where(finished_N, scores_N, torch.full_like(scores_N, spec.missing_end_reward))


def token_rewards(
    scores_N: Float[Tensor, "N"],
    logp_NT: Float[Tensor, "N T"],
    ref_logp_NT: Float[Tensor, "N T"],
    mask_NT: Bool[Tensor, "N T"],
    *,
    beta: float,
    estimator: Estimator = "k1",
) -> Float[Tensor, "N T"]:
    """Reward of each response token: −β KL, and the answer's score on its last real token.

    Source: Ziegler et al. 2019, equation 2.
    """
    rewards_NT = -beta * ESTIMATORS[estimator](logp_NT, ref_logp_NT) * mask_NT
    later_NT = mask_NT.flip(1).cumsum(dim=1).flip(1)
    return rewards_NT + scores_N[:, None] * (mask_NT & (later_NT == 1))


def clipped_policy_loss(
    logp_NT: Float[Tensor, "N T"],
    old_logp_NT: Float[Tensor, "N T"],
    advantages_NT: Float[Tensor, "#N #T"],
    mask_NT: Bool[Tensor, "N T"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    token_count: float | Tensor | None = None,
) -> Float[Tensor, ""]:
    """``−min(ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A)``, the mean over response tokens, with ``ρ = π / π_old``.

    Source: Schulman et al. 2017, equation 7.

    Args:
        token_count: what the sum is divided by, where this is a micro-batch of a larger one; its own tokens by default.
    """
    ratio_NT = torch.exp((logp_NT - old_logp_NT) * mask_NT)
    clipped_NT = ratio_NT.clamp(1 - clip_low, 1 + clip_high)
    loss_NT = -torch.minimum(ratio_NT * advantages_NT, clipped_NT * advantages_NT)
    return masked_mean(loss_NT, mask_NT, token_count)


def clipped_value_loss(
    values_NT: Float[Tensor, "N T"],
    old_values_NT: Float[Tensor, "N T"],
    returns_NT: Float[Tensor, "N T"],
    mask_NT: Bool[Tensor, "N T"],
    *,
    clip: float | None = 0.2,
    token_count: float | Tensor | None = None,
) -> Float[Tensor, ""]:
    """``½ max((V − R)², (clip(V, V_old ± ε) − R)²)``, the mean over response tokens.

    Source: Huang et al. 2022, "The 37 implementation details of PPO", detail 9 (value clipping); the ½ as in
    OpenAI's baselines.
    """
    loss_NT = (values_NT - returns_NT) ** 2
    if clip is not None:
        near_NT = torch.maximum(torch.minimum(values_NT, old_values_NT + clip), old_values_NT - clip)
        loss_NT = torch.maximum(loss_NT, (near_NT - returns_NT) ** 2)
    return 0.5 * masked_mean(loss_NT, mask_NT, token_count)


@torch.no_grad()
def clip_fraction(
    logp_NT: Float[Tensor, "N T"],
    old_logp_NT: Float[Tensor, "N T"],
    advantages_NT: Float[Tensor, "#N #T"],
    mask_NT: Bool[Tensor, "N T"],
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    token_count: float | Tensor | None = None,
) -> Float[Tensor, ""]:
    """Share of response tokens whose gradient the clip has cut: ratio past the bound on the advantage's side."""
    ratio_NT = torch.exp((logp_NT - old_logp_NT) * mask_NT)
    low_NT = (ratio_NT < 1 - clip_low) & (advantages_NT < 0)
    high_NT = (ratio_NT > 1 + clip_high) & (advantages_NT > 0)
    return masked_mean((low_NT | high_NT).to(logp_NT.dtype), mask_NT, token_count)


def masked_mean(
    values_NT: Float[Tensor, "N T"], mask_NT: Bool[Tensor, "N T"], count: float | Tensor | None = None
) -> Float[Tensor, ""]:
    """Mean over the masked tokens, or their sum divided by `count`."""
    total = torch.where(mask_NT, values_NT, torch.zeros_like(values_NT)).sum()
    return total / (mask_NT.sum().clamp(min=1) if count is None else count)
