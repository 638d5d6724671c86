"""Click logs of simulated users: lists of answers, position bias, and inverse-propensity weighting.

A user is shown K answers in an order, looks at position k with probability θ_k (its propensity), and accepts an answer
that was looked at with a probability that is the answer's utility: ``P(click on y at k) = θ_k u(y)``, the
position-based model. So a click count says as much about the order as about the answers. Weighting each click by
1 / θ_k undoes that on average (Horvitz & Thompson 1952; for clicks Joachims, Swaminathan & Schnabel 2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from underhood.align.dpo import DPOSpec
from underhood.align.enumerable import TablePolicy
from underhood.align.population import margin_loss
from underhood.path.lib.exact_training import minimise

EXAMINATION = (1.0, 1 / 2, 1 / 3, 1 / 4)
"""Probability that a user looks at each position: ``1 / k``, as in the simulations of Joachims et al. 2017."""


@dataclass(frozen=True)
class ClickLog:
    """Log of V visits: the answers of each list by position, and which of them were clicked."""

    answers_VK: Int[Tensor, "V K"]
    clicked_VK: Bool[Tensor, "V K"]

    def __len__(self) -> int:
        return len(self.answers_VK)


def visits(
    policy: TablePolicy,
    utility_N: Float[Tensor, "N"],
    count: int,
    generator: torch.Generator,
    *,
    examination: Sequence[float] = EXAMINATION,
    randomised: bool = False,
) -> ClickLog:
    """Lists of the policy's answers with the likeliest first, and what users click.

    Args:
        utility_N: probability that a user who looks at an answer accepts it.
        randomised: shows each list in a random order.
    """
    theta_K = torch.tensor(examination, dtype=torch.float64)
    answers_VK = policy.sample(count * len(theta_K), generator).view(count, -1)
    score_VK = torch.rand(answers_VK.shape, generator=generator, dtype=torch.float64)
    if not randomised:
        score_VK = policy.log_probs_N().detach()[answers_VK]
    answers_VK = answers_VK.gather(1, score_VK.argsort(dim=1, descending=True, stable=True))
    uniform_VK = torch.rand(answers_VK.shape, generator=generator, dtype=torch.float64)
    return ClickLog(answers_VK, uniform_VK < theta_K * utility_N[answers_VK])


def estimated_propensities(log: ClickLog) -> list[float]:
    """Propensities relative to the first position, from lists in random order.

    There the answers are on average the same at every position, so the click rates are proportional to θ_k.
    """
    clicks_K = log.clicked_VK.double().sum(dim=0)
    return (clicks_K / clicks_K[0]).tolist()


def weighted_clicks(clicked_VK: Bool[Tensor, "V K"], propensities: Sequence[float] | None) -> Float[Tensor, "V K"]:
    """``click / θ_k``, of which the mean is the utility; the clicks themselves without propensities (naive)."""
    if propensities is None:
        return clicked_VK.double()
    return clicked_VK / torch.tensor(propensities, dtype=torch.float64)


def shuffled_clicks(log: ClickLog, generator: torch.Generator) -> ClickLog:
    """Every column of clicks shuffled over the visits: positions keep their click rates, answers lose theirs."""
    order_VK = torch.rand(log.clicked_VK.shape, generator=generator).argsort(dim=0)
    return ClickLog(log.answers_VK, log.clicked_VK.gather(0, order_VK))


def pair_weights_NN(log: ClickLog, weight_VK: Float[Tensor, "V K"], answers: int) -> Float[Tensor, "N N"]:
    """Pairs for a pairwise loss: [i, j] is the weight of clicks on i in lists with j, per visit.

    A clicked answer is preferred to every other in its list, clicked or not: what was not clicked may not have been
    looked at. With weights of inverse propensity the odds of a pair are ``u(i) / u(j)`` wherever the two were shown,
    which is Bradley–Terry with the reward log u (propensity SVM-rank, Joachims et al. 2017, with another pair loss).
    """
    weight_NN = torch.zeros(answers, answers, dtype=torch.float64)
    length = log.answers_VK.shape[1]
    for i in range(length):
        for j in range(length):
            if i != j:
                indices = (log.answers_VK[:, i], log.answers_VK[:, j])
                weight_NN.index_put_(indices, weight_VK[:, i] / len(log), accumulate=True)
    return weight_NN.fill_diagonal_(0.0)


def dpo_on_pairs(
    policy: TablePolicy, weight_NN: Float[Tensor, "N N"], beta: float, *, evaluations: int
) -> Float[Tensor, "N"]:
    """DPO from a policy, which is the reference, on weighted pairs (chosen, rejected); log-probabilities at the end."""
    loss, total = margin_loss(DPOSpec(beta=beta)), weight_NN.sum()
    ref_logp_N = policy.log_probs_N().detach()

    def pair_loss(logp_N: Tensor) -> Tensor:
        ratio_N = logp_N - ref_logp_N
        return (weight_NN * loss(ratio_N[:, None] - ratio_N)).sum() / total

    return minimise(policy, pair_loss, evaluations=evaluations)


def position_chances_NK(logp_N: Float[Tensor, "N"], length: int, drawn: int) -> Float[Tensor, "N K"]:
    """Chance that so many of the `drawn` other answers of a list are shown above an answer: column k says k of them.

    The others are independent draws from the policy, and the likelier answer is above; among equals the order is
    random, which the average over a random tie-breaker counts (exact, a polynomial).
    """
    p_N, order_N = logp_N.exp(), logp_N.argsort(descending=True, stable=True)
    likelier_N = torch.empty_like(p_N)
    likelier_N[order_N] = p_N[order_N].cumsum(0) - p_N[order_N]
    chance_NK = torch.zeros(len(p_N), length, dtype=torch.float64)
    nodes, weights = np.polynomial.legendre.leggauss(length)
    for node, weight in zip(nodes, weights, strict=True):
        above_N = (likelier_N + p_N * (node + 1) / 2).clamp(0, 1)
        for k in range(drawn + 1):
            chance_NK[:, k] += weight / 2 * math.comb(drawn, k) * above_N**k * (1 - above_N) ** (drawn - k)
    return chance_NK


def expected_click_rate_N(
    logp_N: Float[Tensor, "N"],
    utility_N: Float[Tensor, "N"],
    propensities: Sequence[float] | None,
    examination: Sequence[float] = EXAMINATION,
) -> Float[Tensor, "N"]:
    """Expectation of an answer's mean `weighted_clicks`: its utility if the propensities are right."""
    length = len(examination)
    theta_K = _weighted(examination, propensities)
    return utility_N * (position_chances_NK(logp_N, length, length - 1) @ theta_K)


def expected_pair_weights_NN(
    logp_N: Float[Tensor, "N"],
    utility_N: Float[Tensor, "N"],
    propensities: Sequence[float] | None,
    examination: Sequence[float] = EXAMINATION,
) -> Float[Tensor, "N N"]:
    """Expectation of `pair_weights_NN` over all lists that the policy can show and all clicks."""
    length, p_N = len(examination), logp_N.exp()
    theta_K = _weighted(examination, propensities)
    chance_NK = position_chances_NK(logp_N, length, length - 2)
    first_N = utility_N * (chance_NK[:, : length - 1] @ theta_K[:-1])
    second_N = utility_N * (chance_NK[:, : length - 1] @ theta_K[1:])
    is_first_NN = logp_N[:, None] > logp_N
    weight_NN = torch.where(is_first_NN, first_N[:, None], second_N[:, None]) * p_N[:, None] * p_N
    return length * (length - 1) * weight_NN.fill_diagonal_(0.0)


def _weighted(examination: Sequence[float], propensities: Sequence[float] | None) -> Float[Tensor, "K"]:
    """Weighted clicks on an answer of utility 1 at each position, on average."""
    theta_K = torch.tensor(examination, dtype=torch.float64)
    return theta_K if propensities is None else theta_K / torch.tensor(propensities, dtype=torch.float64)
