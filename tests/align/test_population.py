"""Infinitely many preference pairs: the interpolated sums against all pairs written out, and where DPO and IPO go."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.align.dpo import DPOSpec
from underhood.align.enumerable import EnumerableSpec
from underhood.align.exact import rlhf_optimum, total_variation
from underhood.align.ipo import IPOSpec
from underhood.align.population import MarginLoss, PairPopulation, chebyshev_nodes, lagrange_basis, margin_loss
from underhood.align.simpo import SimPOSpec

LOSSES: dict[str, MarginLoss] = {
    "dpo": margin_loss(DPOSpec(beta=1.0)),
    "cdpo": margin_loss(DPOSpec(beta=0.5, label_smoothing=0.1)),
    "ipo": margin_loss(IPOSpec(tau=0.2)),
    "simpo": margin_loss(SimPOSpec(beta=1.0, gamma=0.7)),
}
FORMULAS: dict[str, MarginLoss] = {
    "dpo": lambda margin: -F.logsigmoid(margin),
    "cdpo": lambda margin: -0.9 * F.logsigmoid(margin / 2) - 0.1 * F.logsigmoid(-margin / 2),
    "ipo": lambda margin: (margin - 2.5) ** 2,
    "simpo": lambda margin: -F.logsigmoid(margin - 0.7),
}


def random_N(count: int, seed: int, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("name", LOSSES)
def test_sum_over_pairs_matches_all_pairs_written_out(name: str):
    logp_N, reward_N = random_N(200, 0).log_softmax(dim=0), random_N(200, 1, 2.0)
    score_N = random_N(200, 2, 3.0).requires_grad_()
    population = PairPopulation(logp_N, reward_N)
    loss = population.loss(score_N, LOSSES[name])
    (gradient_N,) = torch.autograd.grad(loss, score_N)

    weight_NN = (logp_N[:, None] + logp_N).exp()
    preferred_NN = torch.sigmoid(reward_N[:, None] - reward_N)
    margins_NN = score_N[:, None] - score_N
    formula = FORMULAS[name]
    expected = (weight_NN * (preferred_NN * formula(margins_NN) + preferred_NN.T * formula(-margins_NN))).sum()
    (expected_gradient_N,) = torch.autograd.grad(expected, score_N)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(gradient_N, expected_gradient_N, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(population.win_rate_N, preferred_NN @ logp_N.exp())


def test_interpolation_is_exact_at_its_nodes_and_for_polynomials():
    values_N = random_N(30, 3, 4.0)
    nodes_K = chebyshev_nodes(values_N)
    torch.testing.assert_close(lagrange_basis(nodes_K, nodes_K), torch.eye(len(nodes_K), dtype=torch.float64))
    torch.testing.assert_close(lagrange_basis(values_N, nodes_K) @ nodes_K**5, values_N**5)
    assert len(chebyshev_nodes(torch.ones(3, dtype=torch.float64))) == 6  # equal values, too, are a range


def test_gradient_of_dpo_vanishes_at_the_optimum_of_rlhf_and_nowhere_near_it():
    """Over all 2³⁰ pairs. With another β the closed form is not the stationary point."""
    spec, beta = EnumerableSpec(), 0.5
    ref_logp_N, reward_N = random_N(spec.answers, 4).log_softmax(dim=0), random_N(spec.answers, 5)
    population = PairPopulation(ref_logp_N, reward_N)
    slopes = []
    for wrong in (1.0, 1.3):
        best_logp_N, _ = rlhf_optimum(ref_logp_N, reward_N, beta * wrong)
        score_N = (beta * (best_logp_N - ref_logp_N)).requires_grad_()
        (gradient_N,) = torch.autograd.grad(population.loss(score_N, LOSSES["dpo"]), score_N)
        slopes.append(float(gradient_N.abs().sum()))
    assert slopes[0] < 1e-9
    assert slopes[1] > 1e-2


def test_ipo_goes_to_the_optimum_for_the_win_rate():
    """Its population optimum has reward ``P(y beats a random answer)`` in place of r (Azar et al. 2024)."""
    tau = 0.2
    ref_logp_N, reward_N = random_N(500, 6).log_softmax(dim=0), random_N(500, 7, 2.0)
    population = PairPopulation(ref_logp_N, reward_N)
    gradients = {}
    # (h_w − h_l − 1 / 2τ)² over draws of the same distribution: h regresses on the win rate
    for name, target_N in (("win rate", population.win_rate_N), ("reward", reward_N)):
        logp_N, _ = rlhf_optimum(ref_logp_N, target_N, tau)
        score_N = (logp_N - ref_logp_N).requires_grad_()
        loss = population.loss(score_N, margin_loss(IPOSpec(tau=tau)))
        gradients[name] = float(torch.autograd.grad(loss, score_N)[0].abs().sum())
    assert gradients["win rate"] < 1e-9
    assert gradients["reward"] > 0.1


def test_simpo_without_margin_forgets_the_reference():
    """With answers of one length it goes to ``exp(T r / β)``, whatever the reference was."""
    beta, length = 2.0, 5
    draw_logp_N, reward_N = random_N(500, 8).log_softmax(dim=0), random_N(500, 9)
    population = PairPopulation(draw_logp_N, reward_N)
    logp_N = (length * reward_N / beta).log_softmax(dim=0)
    score_N = (beta / length * logp_N).requires_grad_()
    (gradient_N,) = torch.autograd.grad(population.loss(score_N, LOSSES["dpo"]), score_N)
    assert float(gradient_N.abs().sum()) < 1e-9
    best_logp_N, _ = rlhf_optimum(draw_logp_N, reward_N, beta / length)
    assert float(total_variation(logp_N, best_logp_N)) > 0.2
