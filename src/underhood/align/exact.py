"""Exact alignment quantities of an enumerable policy: KL, entropy, the optimum of RLHF, best-of-n; all of them sums.

A distribution over N answers is its log-probabilities ``logp_N`` in nats, normalised. Everything is differentiable.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def expectation(logp_N: Float[Tensor, "N"], value_N: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """``Σ p(y) v(y)``."""
    return (logp_N.exp() * value_N).sum()


def kl_divergence(logp_N: Float[Tensor, "N"], other_logp_N: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """``KL(p ‖ q) = Σ p log(p / q)`` in nats; answers that p never gives add nothing."""
    ratio_N = torch.where(logp_N == -math.inf, 0.0, logp_N - other_logp_N)
    return expectation(logp_N, ratio_N)


def entropy(logp_N: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """``−Σ p log p`` in nats."""
    return -expectation(logp_N, torch.where(logp_N == -math.inf, 0.0, logp_N))


def total_variation(logp_N: Float[Tensor, "N"], other_logp_N: Float[Tensor, "N"]) -> Float[Tensor, ""]:
    """Half the sum of ``|p − q|``, 0 to 1: the largest difference in the probability of any event."""
    return (logp_N.exp() - other_logp_N.exp()).abs().sum() / 2


def rlhf_objective(
    logp_N: Float[Tensor, "N"], ref_logp_N: Float[Tensor, "N"], reward_N: Float[Tensor, "N"], beta: float
) -> Float[Tensor, ""]:
    """``E_π[r] − β KL(π ‖ π_ref)``, the objective of RLHF (Rafailov et al. 2023, equation 3)."""
    return expectation(logp_N, reward_N) - beta * kl_divergence(logp_N, ref_logp_N)


def rlhf_optimum(
    ref_logp_N: Float[Tensor, "N"], reward_N: Float[Tensor, "N"], beta: float
) -> tuple[Float[Tensor, "N"], float]:
    """The best policy, ``π_ref exp(r / β) / Z``, and the objective that it reaches, ``β log Z``.

    Source: Rafailov et al. 2023, equation 4.
    """
    if beta <= 0:
        raise ValueError(f"beta must be above 0, got {beta}")
    unnormalised_N = ref_logp_N + reward_N / beta
    log_z = unnormalised_N.logsumexp(dim=0)
    return unnormalised_N - log_z, float(beta * log_z)


def best_of_n(ref_logp_N: Float[Tensor, "N"], score_N: Float[Tensor, "N"], n: float) -> Float[Tensor, "N"]:
    """The distribution of the best of n independent answers; among equal scores each is as likely as it was drawn.

    With ``F(s) = P(score ≤ s)`` the best score is s with probability ``F(s)ⁿ − F(s⁻)ⁿ``. Real n is allowed.

    Source: Beirami et al. 2024, "Theoretical guarantees on the best-of-n alignment policy", lemma 1.
    """
    if n < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    values_S, level_N = score_N.unique(return_inverse=True)
    mass_S = ref_logp_N.new_zeros(len(values_S)).index_add(0, level_N, ref_logp_N.exp())
    up_to_S = (mass_S.cumsum(0) / mass_S.sum()).clamp(max=1.0)
    below_S = torch.cat([up_to_S.new_zeros(1), up_to_S[:-1]])
    # F(s)ⁿ − F(s⁻)ⁿ without cancellation where a level has little mass
    log_up_S, log_below_S = n * up_to_S.log(), n * below_S.log()
    log_best_S = log_up_S + torch.log(-torch.expm1(log_below_S - log_up_S))
    log_given_level_N = ref_logp_N - mass_S.log()[level_N]
    logp_N = log_given_level_N + log_best_S[level_N]
    return logp_N - logp_N.logsumexp(dim=0)


def best_of_n_kl_bound(n: float) -> float:
    """``log n − (n − 1) / n``: an upper bound of the KL of best-of-n, reached when no two answers score the same.

    Reached in the limit of ever rarer answers; with few answers the KL is below it (Beirami et al. 2024, theorem 1).
    """
    return math.log(n) - (n - 1) / n
