"""Infinitely many preference pairs: the expectation of a pair loss over all pairs of answers, without sampling any.

Both answers of a pair are drawn independently, and the better one is chosen as Bradley and Terry say: y over y' with
probability ``σ(r(y) − r(y'))``. With 32,768 answers that is a sum over 2³⁰ pairs. But the loss of a pair depends only
on two differences, of rewards and of scores, and smoothly, so the sum over the second answer is a smooth function of
the first one's reward and score. It is worked out at Chebyshev nodes and interpolated, to about 1e-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

MarginLoss = Callable[[Tensor], Tensor]
"""Loss of a pair, elementwise, by its margin: the chosen answer's score minus the rejected one's."""

ACCURACY = 1e-12
"""Of the interpolation, for functions as smooth as σ (nearest poles ±iπ)."""


class PairPopulation:
    """All pairs of answers with their probabilities under independent draws and Bradley–Terry preferences.

    Args:
        logp_N: log-probabilities of the distribution that both answers of a pair are drawn from, in nats.
        reward_N: rewards of the answers; a difference of 1 means odds of e.
    """

    def __init__(self, logp_N: Float[Tensor, "N"], reward_N: Float[Tensor, "N"]):
        self.weight_N = logp_N.exp()
        nodes_K = chebyshev_nodes(reward_N)
        self._basis_NK = lagrange_basis(reward_N, nodes_K)
        self._preferred_KN = torch.sigmoid(nodes_K[:, None] - reward_N)
        self.win_rate_N = self._basis_NK @ (self._preferred_KN @ self.weight_N)

    win_rate_N: Float[Tensor, "N"]
    """Probability that an answer is preferred to one drawn at random."""

    def loss(self, score_N: Float[Tensor, "N"], margin_loss: MarginLoss) -> Float[Tensor, ""]:
        """``E[margin_loss(score(chosen) − score(rejected))]`` over all pairs; its gradient flows into the scores.

        For DPO the score is ``β log(π / π_ref)`` and the loss ``−log σ`` (Rafailov et al. 2023, equation 7). The loss
        must be as smooth as σ.
        """
        score_detached_N = score_N.detach()
        nodes_M = chebyshev_nodes(score_detached_N)
        difference_MN = nodes_M[:, None] - score_detached_N
        chosen_MN, chosen_slope_MN = _with_slope(margin_loss, difference_MN)
        _, rejected_slope_MN = _with_slope(margin_loss, -difference_MN)
        basis_NM = lagrange_basis(score_detached_N, nodes_M)

        def summed_N(table_MN: Tensor, preferred_KN: Tensor) -> Tensor:
            table_KM = preferred_KN @ (table_MN * self.weight_N).T
            return ((self._basis_NK @ table_KM) * basis_NM).sum(dim=1)

        value = 2 * (self.weight_N * summed_N(chosen_MN, self._preferred_KN)).sum()
        slope_N = summed_N(chosen_slope_MN, self._preferred_KN) - summed_N(rejected_slope_MN, 1 - self._preferred_KN)
        gradient_N = 2 * self.weight_N * slope_N
        return value + (gradient_N * (score_N - score_detached_N)).sum()


def chebyshev_nodes(values_N: Float[Tensor, "N"]) -> Float[Tensor, "K"]:
    """Nodes that cover the range of the values, as many as σ needs for `ACCURACY`."""
    low, high = float(values_N.min()), float(values_N.max())
    half = max((high - low) / 2, 1e-3)
    # the interpolation error falls as rho ** -count, where rho is the sum of the half axes of the ellipse through iπ
    rho = math.pi / half + math.hypot(1.0, math.pi / half)
    count = max(6, math.ceil(-math.log(ACCURACY) / math.log(rho)))
    angle_K = (torch.arange(count, dtype=values_N.dtype) + 0.5) * math.pi / count
    return (low + high) / 2 + half * angle_K.cos()


def lagrange_basis(values_N: Float[Tensor, "N"], nodes_K: Float[Tensor, "K"]) -> Float[Tensor, "N K"]:
    """The weights that the values at Chebyshev nodes have in the polynomial through them (barycentric formula).

    Source: Berrut and Trefethen 2004, "Barycentric Lagrange interpolation", equation 4.2.
    """
    count = len(nodes_K)
    angle_K = (torch.arange(count, dtype=nodes_K.dtype) + 0.5) * math.pi / count
    weight_K = angle_K.sin() * (1 - 2 * (torch.arange(count) % 2))
    distance_NK = values_N[:, None] - nodes_K
    at_node_NK = distance_NK == 0
    term_NK = weight_K / distance_NK.masked_fill(at_node_NK, 1.0)
    term_NK = torch.where(at_node_NK.any(dim=1, keepdim=True), at_node_NK.to(term_NK.dtype), term_NK)
    return term_NK / term_NK.sum(dim=1, keepdim=True)


def _with_slope(function: MarginLoss, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), slope
