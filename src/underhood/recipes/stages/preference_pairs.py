"""Preference pairs of a run as data of a stage: what the records of DPO and of the reward model share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.registry import DataSize, StageSettings

if TYPE_CHECKING:
    from underhood.core.protocols import Tokenizer
    from underhood.data.preferences import Pair
    from underhood.recipes.training_data import StageData


@dataclass(frozen=True, kw_only=True)
class PairSettings(StageSettings):
    """Settings of a stage that learns from preference pairs.

    Attributes:
        refusals: of the pairs about refusing, how many prefer the refusal, from 0 (the model will answer more) to 1
            (it will refuse more).
    """

    refusals: float = 0.5

    def __post_init__(self):
        super().__post_init__()
        if not 0 <= self.refusals <= 1:
            raise ValueError(f"refusals is a share between 0 and 1, got {self.refusals}")


def with_refusals(pairs: Sequence[Pair], share: float) -> list[Pair]:
    """The pairs with as many of those about refusing as give this share of right refusals; the others all stay."""
    wanted = {"invented": share, "over-refusal": 1 - share}
    there = {kind: sum(pair.kind == kind for pair in pairs) for kind in wanted}
    total = min((there[kind] / wanted[kind] for kind in wanted if wanted[kind] > 0), default=0.0)
    left = {kind: round(total * wanted[kind]) for kind in wanted}
    kept = []
    for pair in pairs:
        if pair.kind in left:
            left[pair.kind] -= 1
            if left[pair.kind] < 0:
                continue
        kept.append(pair)
    return kept


def pair_tokens(data: StageData, tokenizer: Tokenizer) -> DataSize:
    """Tokens of all pairs; a pair takes a row of the batch, counted with both its answers."""
    from underhood.recipes.training_data import render_pairs

    pairs = render_pairs(tokenizer, data.pairs, context_length=1 << 20)
    if not pairs:
        return DataSize(tokens=0)
    average = sum(len(ids) for pair in pairs for ids, _ in pair) // len(pairs)
    return DataSize(tokens=len(pairs) * average, row_tokens=average)
