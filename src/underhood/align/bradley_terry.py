"""Bradley–Terry model: the chance that one item is preferred to another is a logistic function of their strengths.

``P(i ≻ j) = σ(s_i − s_j)`` (Bradley & Terry 1952). Reward models are trained by its likelihood with a network for the
strengths; here is its exact maximum for a few items and a table of wins.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 1e-12
"""Newton's steps end when no strength moves further."""

MOST_STEPS = 100


def bradley_terry_strengths(wins_KK: Float[Tensor, "K K"]) -> Float[Tensor, "K"]:
    """The strengths of maximal likelihood, in nats, in float64 and with mean 0.

    Args:
        wins_KK: how often item i was preferred to item j; the diagonal is ignored.

    Raises:
        ValueError: a count is negative, or no finite maximum exists: some group of items never lost to (or never met)
            the rest (Ford 1957).
    """
    wins_KK = wins_KK.double().clone().fill_diagonal_(0)
    count = len(wins_KK)
    if bool((wins_KK < 0).any()):
        raise ValueError("wins can't be negative")
    if not _strongly_connected(wins_KK > 0):
        raise ValueError("no finite strengths fit: some items never lost to the others, or never met them")
    games_KK = wins_KK + wins_KK.T
    strength_K = torch.zeros(count, dtype=torch.float64)
    for _ in range(MOST_STEPS):
        p_KK = torch.sigmoid(strength_K[:, None] - strength_K)
        gradient_K = (wins_KK - games_KK * p_KK).sum(1)
        weight_KK = games_KK * p_KK * (1 - p_KK)
        hessian_KK = torch.diag(weight_KK.sum(1)) - weight_KK
        # Strengths are known up to a constant: adding ones to the curvature fixes their mean.
        step_K = torch.linalg.solve(hessian_KK + 1 / count, gradient_K)
        # A full step may overshoot far from the maximum; the likelihood is concave, so a shorter one serves.
        scale = min(1.0, 2.0 / max(float(step_K.abs().max()), 1e-300))
        strength_K = strength_K + scale * step_K
        if float(step_K.abs().max()) < TOLERANCE:
            break
    return strength_K - strength_K.mean()


def _strongly_connected(beaten_KK: Tensor) -> bool:
    """Whether every item is reached from every other along wins."""
    reached_KK = beaten_KK | torch.eye(len(beaten_KK), dtype=torch.bool)
    for _ in range(len(beaten_KK)):
        reached_KK = (reached_KK.double() @ reached_KK.double()) > 0
    return bool(reached_KK.all())
