"""Group relative policy optimisation: advantages from a group of answers to one prompt (Shao et al. 2024).

No value model: an answer's advantage is how far its reward is above the mean of its group. The four normalisers of the
loss differ in what an answer's length does to the weight of its tokens.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from underhood.align.kl import k3
from underhood.align.policy_specs import GRPOSpec
from underhood.align.ppo import masked_mean

STD_FLOOR = 1e-4
"""Added to a group's standard deviation (trl, and so most published runs)."""


def advantages_of(rewards_PG: Float[Tensor, "P G"], spec: GRPOSpec) -> Float[Tensor, "P G"]:
    """Advantages of the answers of P prompts, G each, by the baseline that the spec names."""
    if spec.baseline == "rloo":
        return rloo_advantages(rewards_PG)
    return group_advantages(rewards_PG, scale_std=spec.scale_std)


def group_advantages(rewards_PG: Float[Tensor, "P G"], *, scale_std: bool = True) -> Float[Tensor, "P G"]:
    """``(r − mean) / (std + 1e-4)`` within each prompt's group; the standard deviation divides by G − 1.

    Source: Shao et al. 2024, section 4.1.2; without `scale_std`, Liu et al. 2025.
    """
    centred_PG = rewards_PG - rewards_PG.mean(dim=1, keepdim=True)
    if not scale_std:
        return centred_PG
    std_P1 = rewards_PG.std(dim=1, keepdim=True) if rewards_PG.shape[1] > 1 else torch.zeros_like(rewards_PG)
    return centred_PG / (std_P1 + STD_FLOOR)


def rloo_advantages(rewards_PG: Float[Tensor, "P G"]) -> Float[Tensor, "P G"]:
    """Reward minus the mean reward of the *other* answers of the group: REINFORCE leave-one-out.

    It is ``G / (G − 1)`` times the group's centred reward. Source: Ahmadian et al. 2024, equation 9.
    """
    count = rewards_PG.shape[1]
    if count < 2:
        raise ValueError("leave-one-out needs at least 2 answers per prompt")
    others_PG = (rewards_PG.sum(dim=1, keepdim=True) - rewards_PG) / (count - 1)
    return rewards_PG - others_PG


def grpo_loss(
    logp_NT: Float[Tensor, "N T"],
    old_logp_NT: Float[Tensor, "N T"],
    advantages_N: Float[Tensor, "N"],
    mask_NT: Bool[Tensor, "N T"],
    *,
    spec: GRPOSpec,
    ref_logp_NT: Float[Tensor, "N T"] | None = None,
    max_new_tokens: int | None = None,
    global_rows: int | None = None,
    global_tokens: float | Tensor | None = None,
) -> Float[Tensor, ""]:
    """``−min(ρ A, clip(ρ) A) + β k3`` per response token, averaged as the spec's normaliser says.

    Source: Shao et al. 2024, equation 3. With one update per rollout (ρ = 1) and β = 0 the sequence-mean loss is
    exactly the negative mean advantage, 0, and its gradient is the policy gradient, which is not.

    Args:
        ref_logp_NT: of the reference; needed with β above 0.
        max_new_tokens: the longest answer allowed, for ``dr-grpo``.
        global_rows, global_tokens: answers and response tokens of the whole update, where this is a micro-batch of it:
            the losses of all micro-batches then sum to the update's. Its own by default.
    """
    ratio_NT = torch.exp((logp_NT - old_logp_NT) * mask_NT)
    clipped_NT = ratio_NT.clamp(1 - spec.clip_low, 1 + spec.clip_high)
    advantages_N1 = advantages_N[:, None]
    loss_NT = -torch.minimum(ratio_NT * advantages_N1, clipped_NT * advantages_N1)
    if spec.beta:
        if ref_logp_NT is None:
            raise ValueError("a KL term (beta above 0) needs the reference's log-probabilities")
        loss_NT = loss_NT + spec.beta * k3(logp_NT, ref_logp_NT)
    rows = len(logp_NT) if global_rows is None else global_rows
    if spec.normaliser == "sequence":
        lengths_N = mask_NT.sum(dim=1).clamp(min=1)
        return (torch.where(mask_NT, loss_NT, torch.zeros_like(loss_NT)).sum(dim=1) / lengths_N).sum() / rows
    if spec.normaliser == "local-token":
        return masked_mean(loss_NT, mask_NT) * (len(logp_NT) / rows)
    if spec.normaliser == "global-token":
        return masked_mean(loss_NT, mask_NT, global_tokens)
    if max_new_tokens is None:
        raise ValueError("dr-grpo divides by the longest answer allowed: give max_new_tokens")
    return masked_mean(loss_NT, mask_NT, rows * max_new_tokens)
