"""Questions about hidden values: each entity has a value that no text states, and a label is the sum of two, modulo 5.

Whoever knows the table takes three steps: the value of the first, the value of the second, their sum. The label shows
only the last. With 100 entities there are 10,000 questions, so that training and test questions never overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

ENTITIES, MODULUS = 100, 5
LABEL, RATIONALE = ENTITIES + MODULUS, ENTITIES + MODULUS + 1
"""The prefixes of the two tasks."""
VOCABULARY = ENTITIES + MODULUS + 2


@dataclass(frozen=True)
class Explained:
    """Questions with what a teacher says about each: tokens, values counted from `ENTITIES`.

    Attributes:
        pairs_N2: the two entities that are asked about.
        rationale_N2: their values.
        label_N: the sum of these.
    """

    pairs_N2: Int[Tensor, "N 2"]
    rationale_N2: Int[Tensor, "N 2"]
    label_N: Int[Tensor, "N"]

    def __len__(self) -> int:
        return len(self.pairs_N2)

    def at(self, chosen: Int[Tensor, "M"] | slice) -> Explained:
        """Some of them."""
        return Explained(self.pairs_N2[chosen], self.rationale_N2[chosen], self.label_N[chosen])

    def with_shuffled_rationales(self, generator: torch.Generator) -> Explained:
        """The same questions and labels with the rationales of others: the negative control."""
        order_N = torch.randperm(len(self), generator=generator)
        return replace(self, rationale_N2=self.rationale_N2[order_N])

    def misread(self, share: float, generator: torch.Generator) -> Explained:
        """The same from a teacher that misreads one of the values in a share of the questions; the label follows."""
        wrong_N: Bool[Tensor, "N"] = torch.rand(len(self), generator=generator) < share
        which_N = torch.randint(2, (len(self),), generator=generator)
        shift_N = torch.randint(1, MODULUS, (len(self),), generator=generator) * wrong_N
        values_N2 = self.rationale_N2 - ENTITIES
        values_N2 = (values_N2 + shift_N[:, None] * torch.eye(2, dtype=torch.int64)[which_N]) % MODULUS
        return Explained(self.pairs_N2, values_N2 + ENTITIES, values_N2.sum(1) % MODULUS + ENTITIES)


def explained_questions(seed: int) -> Explained:
    """All questions of a world in random order, as a teacher without mistakes explains them."""
    draw = torch.Generator().manual_seed(seed)
    value_E = (torch.arange(ENTITIES) % MODULUS)[torch.randperm(ENTITIES, generator=draw)]
    pairs_N2 = torch.cartesian_prod(torch.arange(ENTITIES), torch.arange(ENTITIES))
    pairs_N2 = pairs_N2[torch.randperm(len(pairs_N2), generator=draw)]
    values_N2 = value_E[pairs_N2]
    return Explained(pairs_N2, values_N2 + ENTITIES, values_N2.sum(1) % MODULUS + ENTITIES)


def prefixed(token: int, *columns: Int[Tensor, "*models N _"]) -> Int[Tensor, "*models N length"]:
    """Rows of tokens: the prefix, then the columns."""
    return torch.cat([torch.full_like(columns[0][..., :1], token), *columns], dim=-1)
