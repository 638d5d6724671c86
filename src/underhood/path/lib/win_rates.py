"""Win rates of two models' answers under a judge, with the order swapped, and bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def wins(first_N: Float[Tensor, "N"], second_N: Float[Tensor, "N"]) -> Float[Tensor, "N"]:
    """1 where the judge prefers the first answer, 0 the second, ½ a tie: the mean of both orders of showing them.

    A judge that reads off the gold reward has no position to be biased by; the order is swapped all the same, so that
    a tie never goes to whoever is shown first.
    """
    shown_first_N = (first_N >= second_N).float()
    shown_second_N = 1 - (second_N >= first_N).float()
    return (shown_first_N + shown_second_N) / 2


def bootstrap(values_SN: Sequence[Float[Tensor, "N"]], seed: int = 0, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean, by drawing seeds and, within each, answers again (percentile bootstrap)."""
    generator = torch.Generator().manual_seed(seed)
    means: list[float] = []
    for _ in range(draws):
        chosen = torch.randint(len(values_SN), (len(values_SN),), generator=generator).tolist()
        drawn_SN = [again(values_SN[s], generator) for s in chosen]
        means.append(float(torch.cat(drawn_SN).mean()))
    low, high = torch.tensor(means).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def again(values_N: Float[Tensor, "N"], generator: torch.Generator) -> Float[Tensor, "N"]:
    """As many values, drawn with replacement."""
    return values_N[torch.randint(len(values_N), (len(values_N),), generator=generator)]
