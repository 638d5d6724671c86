"""Generalised advantage estimation (Schulman et al. 2016), and whitening, over the tokens of answers."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

VARIANCE_FLOOR = 1e-8
"""Added to a variance before its root (lm-human-preferences)."""


def gae(
    rewards_NT: Float[Tensor, "N T"],
    values_NT: Float[Tensor, "N T"],
    mask_NT: Bool[Tensor, "N T"],
    gamma: float,
    lam: float,
) -> tuple[Float[Tensor, "N T"], Float[Tensor, "N T"]]:
    """Advantages ``Σ_l (γλ)^l δ_{t+l}`` with ``δ_t = r_t + γ V_{t+1} − V_t``, and returns ``A_t + V_t``; 0 elsewhere.

    Source: Schulman et al. 2016, equations 11 and 16. After an answer's last token nothing follows: V is 0 there.

    Args:
        rewards_NT: reward of each response token.
        values_NT: value of the state before each response token. No gradient flows.
        mask_NT: response tokens.
        gamma: discount γ.
        lam: λ; 1 gives Monte Carlo returns, 0 the one-step error.
    """
    advantages_NT = torch.zeros_like(rewards_NT)
    advantage_N, next_value_N = torch.zeros_like(rewards_NT[:, 0]), torch.zeros_like(rewards_NT[:, 0])
    values_NT = values_NT.detach()
    for t in range(rewards_NT.shape[1] - 1, -1, -1):
        inside_N = mask_NT[:, t]
        delta_N = rewards_NT[:, t] + gamma * next_value_N - values_NT[:, t]
        advantage_N = torch.where(inside_N, delta_N + gamma * lam * advantage_N, advantage_N)
        next_value_N = torch.where(inside_N, values_NT[:, t], next_value_N)
        advantages_NT[:, t] = advantage_N
    advantages_NT = advantages_NT * mask_NT
    return advantages_NT, (advantages_NT + values_NT) * mask_NT


def whiten(
    values_NT: Float[Tensor, "*N"],
    mask_NT: Bool[Tensor, "*N"],
    *,
    shift_mean: bool = True,
    bessel: bool = False,
) -> Float[Tensor, "*N"]:
    """Values of the masked tokens scaled to variance 1, and shifted to mean 0 unless told otherwise; 0 elsewhere.

    Args:
        shift_mean: False keeps the mean, as for rewards; True for advantages (Huang et al. 2024).
        bessel: divides the sum of squares by n − 1. The original in TensorFlow divides by n.
    """
    mask_NT = mask_NT.to(values_NT.dtype)
    count = mask_NT.sum()
    mean = (values_NT * mask_NT).sum() / count.clamp(min=1)
    squares = ((values_NT - mean) ** 2 * mask_NT).sum()
    variance = squares / (count - 1 if bessel else count).clamp(min=1)
    whitened_NT = (values_NT - mean) * torch.rsqrt(variance + VARIANCE_FLOOR)
    return (whitened_NT if shift_mean else whitened_NT + mean) * mask_NT
