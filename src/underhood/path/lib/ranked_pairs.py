"""Pairs of rankings, how well scores order them, and a free strength for each of a few items."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from underhood.align.rankings import RankedAnswers
from underhood.align.reward_model import RewardModel, bradley_terry_loss


def pairs_of(ranking: RankedAnswers) -> list[RankedAnswers]:
    """Every two answers of a ranking, as a ranking of their own."""
    return [
        RankedAnswers((ranking.texts[i], ranking.texts[j]), (ranking.ranks[i], ranking.ranks[j]))
        for i, j in combinations(range(len(ranking.texts)), 2)
    ]


def pair_loss(model: RewardModel, rankings: Sequence[RankedAnswers]) -> float:
    """Mean Bradley–Terry loss over all pairs of all rankings, in nats."""
    score_N = model.scores([text for ranking in rankings for text in ranking.texts], batch_size=256)
    losses: list[Tensor] = []
    for ranking, score_K in zip(rankings, score_N.split([len(r.texts) for r in rankings]), strict=True):
        best_first_K = score_K[torch.tensor(ranking.ranks).argsort()]
        i, j = torch.triu_indices(len(score_K), len(score_K), offset=1)
        losses.append(-F.logsigmoid(best_first_K[i] - best_first_K[j]))
    return float(torch.cat(losses).mean())


def right_order(difference_N: Float[Tensor, "N"], first_is_better_N: Bool[Tensor, "N"]) -> Float[Tensor, "N"]:
    """1 where the sign of a difference of scores is that of the label, ½ where it is 0."""
    return torch.where(difference_N == 0, 0.5, ((difference_N > 0) == first_is_better_N).float())


def simulated_wins(strength_K: np.ndarray, games: int, seed: int) -> Float[Tensor, "K K"]:
    """How often each item is preferred to each other, of `games` comparisons of each pair."""
    draw = np.random.default_rng(seed)
    wins_KK = torch.zeros(len(strength_K), len(strength_K), dtype=torch.float64)
    for i, j in combinations(range(len(strength_K)), 2):
        won = draw.binomial(games, 1 / (1 + np.exp(strength_K[j] - strength_K[i])))
        wins_KK[i, j], wins_KK[j, i] = won, games - won
    return wins_KK


def fitted_strengths(wins_KK: Float[Tensor, "K K"]) -> Float[Tensor, "K"]:
    """Free strengths by gradient steps (L-BFGS) on `bradley_terry_loss` over every single comparison, with mean 0."""
    strength_K = torch.zeros(len(wins_KK), dtype=torch.float64, requires_grad=True)
    winner_N, loser_N = (wins_KK > 0).nonzero(as_tuple=True)
    count_N = wins_KK[winner_N, loser_N].long()
    winner_N, loser_N = winner_N.repeat_interleave(count_N), loser_N.repeat_interleave(count_N)
    optimizer = torch.optim.LBFGS([strength_K], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = bradley_terry_loss(strength_K[winner_N], strength_K[loser_N])
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return (strength_K - strength_K.mean()).detach()
