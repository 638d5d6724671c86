"""Proximal policy optimisation for language models: settings, rewards per token, and losses (Schulman et al. 2017).

An answer's tokens are the actions. Its score comes with the last token; every token pays for leaving the reference:
``r_t = −β KL_t + [t = last] · score`` (Ziegler et al. 2019, equation 2; Ouyang et al. 2022, equation 2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from underhood.align.kl import ESTIMATORS, Estimator, KLController


@dataclass(frozen=True, kw_only=True)
class PPOSpec:
    """PPO with every published detail as a field. [N] is Huang et al. 2024, "The N implementation details of RLHF
    with PPO"; [I] is Ouyang et al. 2022 (InstructGPT).

    Attributes:
        clip_low: ratios below 1 − this earn nothing more (Schulman et al. 2017, equation 7: 0.2).
        clip_high: the same above 1 (0.2; more lets rare tokens grow: Yu et al. 2025, section 3.1).
        value_clip: how far a value may move from the rollout's before its loss is clipped ([N]; 0.2); None: anywhere.
        value_weight: weight of the value loss beside the policy's ([N]: 0.1).
        gamma: discount ([N]: 1).
        lam: λ of GAE ([N]: 0.95).
        beta: KL coefficient at the start (Ziegler et al. 2019: 0.15; [I]: 0.02).
        kl_target: KL per answer that the adaptive controller aims at, in nats (Ziegler et al. 2019, section 2.2: 6);
            None keeps β fixed, as [I] does.
        kl_horizon: answers in which the controller corrects an error (Ziegler et al. 2019: 10,000).
        kl_estimator: the KL per token inside the reward ([N]: k1).
        whiten_rewards: scales the rewards per token to variance 1 and keeps their mean ([N]).
        whiten_advantages: scales advantages to variance 1 and mean 0 over a rollout's tokens ([N]).
        bessel: variances divide by n − 1. TensorFlow, and so the original, divides by n ([N]).
        missing_end_reward: the score of an answer that was cut off before its end, whatever the reward says ([N]: the
            EOS trick, −1); None scores it like any other.
        reward_clip: scores are clipped to ± this (Dai et al. 2024 and others: 5); None leaves them.
        ptx_weight: weight of the pretraining loss mixed into the updates, PPO-ptx ([I], equation 2: 27.8).
        epochs: passes over each rollout's answers ([N]: 4; [I]: 1).
        value_init_std: standard deviation of the value head's weights at the start ([N]: 0).
        adam_eps: Adam's ε ([N]: 1e-5 with TensorFlow's placement; PyTorch's makes early updates larger).
        anneal: the learning rate falls linearly to 0 ([N]).
        dropout: policies drop out in updates. Off: ratios would differ from 1 without any update ([N]).
    """

    clip_low: float = 0.2
    clip_high: float = 0.2
    value_clip: float | None = 0.2
    value_weight: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95
    beta: float = 0.05
    kl_target: float | None = None
    kl_horizon: int = 10_000
    kl_estimator: Estimator = "k1"
    whiten_rewards: bool = True
    whiten_advantages: bool = True
    bessel: bool = False
    missing_end_reward: float | None = -1.0
    reward_clip: float | None = None
    ptx_weight: float = 0.0
    epochs: int = 4
    value_init_std: float = 0.0
    adam_eps: float = 1e-5
    anneal: bool = True
    dropout: bool = False

    def __post_init__(self):
        for name in ("clip_low", "clip_high", "value_weight", "beta", "ptx_weight", "value_init_std"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} can't be negative, got {getattr(self, name)}")
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a number from 0 to 1, got {getattr(self, name)}")
        if self.epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {self.epochs}")
        self.controller()

    def controller(self) -> KLController:
        """A fresh controller of the KL coefficient."""
        return KLController(self.beta, self.kl_target, self.kl_horizon)


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
