"""Infinitely many preference pairs: the expectation of a pair loss over all pairs of answers, without sampling any.

Both answers of a pair are drawn independently, and the better one is chosen as Bradley and Terry say: y over y' with
probability ``σ(r(y) − r(y'))``. With 32,768 answers that is a sum over 2³⁰ pairs. But the loss of a pair depends only
on two differences, of rewards and of scores, and smoothly, so the sum over the second answer is a smooth function of
the first one's reward and score, and of the second one's. It is worked out at Chebyshev nodes only and interpolated, to
about 1e-10.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import PairScores, PreferenceLoss

MarginLoss = Callable[[Tensor], Tensor]
"""Loss of a pair, elementwise, by its margin: the chosen answer's score minus the rejected one's."""

ACCURACY = 1e-11
"""Of the interpolation, for functions as smooth as σ (nearest poles ±iπ)."""


class PairPopulation:
    """All pairs of answers with their probabilities under independent draws and Bradley–Terry preferences.

    Args:
        logp_N: log-probabilities of the distribution that both answers of a pair are drawn from, in nats.
        reward_N: rewards of the answers; a difference of 1 means odds of e.
    """

    win_rate_N: Float[Tensor, "N"]
    """Probability that an answer is preferred to one drawn at random."""

    def __init__(self, logp_N: Float[Tensor, "N"], reward_N: Float[Tensor, "N"]):
        self.weight_N = logp_N.exp()
        nodes_K = chebyshev_nodes(reward_N)
        self._basis_NK = lagrange_basis(reward_N, nodes_K)
        self._preferred_KK = torch.sigmoid(nodes_K[:, None] - nodes_K)
        self.win_rate_N = self._basis_NK @ (self._preferred_KK @ (self._basis_NK.T @ self.weight_N))

    def loss(self, score_N: Float[Tensor, "N"], margin_loss: MarginLoss) -> Float[Tensor, ""]:
        """``E[margin_loss(score(chosen) − score(rejected))]`` over all pairs; its gradient flows into the scores.

        For DPO the score is ``β log(π / π_ref)`` and the loss ``−log σ`` (Rafailov et al. 2023, equation 7). The loss
        must be as smooth as σ.
        """
        score_detached_N = score_N.detach()
        nodes_M = chebyshev_nodes(score_detached_N)
        basis_NM = lagrange_basis(score_detached_N, nodes_M)
        loss_MM, slope_MM = _with_slope(margin_loss, nodes_M[:, None] - nodes_M)
        # as if all answers were at the nodes, with weights that may be negative
        weight_KM = self._basis_NK.T @ (self.weight_N[:, None] * basis_NM)
        value = 2 * (weight_KM * (self._preferred_KK @ weight_KM @ loss_MM.T)).sum()
        # the slope of a pair's loss with respect to the first answer's score, chosen or rejected
        slope_KM = self._preferred_KK @ weight_KM @ slope_MM.T - (1 - self._preferred_KK) @ weight_KM @ slope_MM
        gradient_N = 2 * self.weight_N * ((self._basis_NK @ slope_KM) * basis_NM).sum(dim=1)
        return value + (gradient_N * (score_N - score_detached_N)).sum()


def margin_loss(spec: PreferenceLoss) -> MarginLoss:
    """The loss of a `PreferenceLoss` that depends on the margin of the log-ratios only (DPO, IPO, SimPO …)."""

    def single(margin: Tensor) -> Tensor:
        zero_N, one_N = torch.zeros_like(margin[None]), torch.ones_like(margin[None])
        reference = PairScores(zero_N, zero_N, one_N, one_N)
        return spec.preference(PairScores(margin[None], zero_N, one_N, one_N), reference).loss

    def elementwise(margins: Tensor) -> Tensor:
        return torch.func.vmap(single)(margins.flatten()).reshape(margins.shape)

    return elementwise


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
    """The weights that the values at Chebyshev nodes have in the polynomial through them.

    ``ℓ_k(x) = (1 + 2 Σ_j T_j(x_k) T_j(x)) / K`` with ``T_j(cos φ) = cos jφ`` (discrete orthogonality of Chebyshev
    polynomials; Trefethen 2013, "Approximation theory and approximation practice", chapter 3).
    """
    count = len(nodes_K)
    angle_K = (torch.arange(count, dtype=nodes_K.dtype) + 0.5) * math.pi / count
    middle = (nodes_K[0] + nodes_K[-1]) / 2
    half = (nodes_K[0] - nodes_K[-1]) / 2 / angle_K[0].cos()
    angle_N = ((values_N - middle) / half).clamp(-1, 1).arccos()
    order_K = torch.arange(count, dtype=nodes_K.dtype)
    at_nodes_KK = torch.cos(order_K[:, None] * angle_K) * (2 / count)
    at_nodes_KK[0] /= 2
    return torch.cos(angle_N[:, None] * order_K) @ at_nodes_KK


def _with_slope(function: MarginLoss, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        y = function(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), slope
