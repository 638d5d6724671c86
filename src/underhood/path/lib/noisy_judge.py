"""Noisy judge of answers: preferences from a gold reward with Bradley–Terry noise, calibrated to a known agreement."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

AGREEMENT = 0.73
"""How often a label of the noisy judge agrees with the gold reward's order."""


@runtime_checkable
class GoldScored(Protocol):
    """An answer whose gold reward is known."""

    @property
    def gold(self) -> float: ...


Scored = TypeVar("Scored", bound=GoldScored)


def golds(answers: Sequence[GoldScored]) -> Float[Tensor, "N"]:
    return torch.tensor([answer.gold for answer in answers])


def calibrated_scale(difference_N: Float[Tensor, "N"], agreement: float = AGREEMENT) -> float:
    """The scale s with ``mean σ(s |Δr|)`` = `agreement`: how sharply a noisy judge sees the gold reward.

    Pairs of equal reward count as well: of those any order is right half the time.
    """
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = (low + high) / 2
        if float(torch.sigmoid(math.exp(middle) * difference_N.abs()).mean()) < agreement:
            low = middle
        else:
            high = middle
    return math.exp(high)


def pair_scale(pairs: Sequence[tuple[GoldScored, GoldScored]], agreement: float = AGREEMENT) -> float:
    """`calibrated_scale` for given pairs of answers."""
    return calibrated_scale(torch.tensor([first.gold - second.gold for first, second in pairs]), agreement)


def noisy_ranking(answers: Sequence[GoldScored], scale: float, draw: np.random.Generator) -> tuple[int, ...]:
    """Ranks, 0 the best: gold rewards times `scale` with Gumbel noise (Plackett–Luce; of two, Bradley–Terry)."""
    noisy_K = np.array([scale * answer.gold for answer in answers]) + draw.gumbel(size=len(answers))
    return tuple(int(rank) for rank in (-noisy_K).argsort().argsort())


def preferences(pairs: Sequence[Sequence[Scored]], scale: float, seed: int) -> list[tuple[Scored, Scored]]:
    """(chosen, rejected) of each pair, as the noisy judge says."""
    draw = np.random.default_rng([seed, 2])
    judged: list[tuple[Scored, Scored]] = []
    for first, second in pairs:
        better = noisy_ranking((first, second), scale, draw)[0] == 0
        judged.append((first, second) if better else (second, first))
    return judged
