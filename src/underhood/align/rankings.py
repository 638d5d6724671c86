"""Rankings of several answers to a prompt, as batches that a training step finds by its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.align.classify import padded_rows
from underhood.core.errors import UserError
from underhood.data.batch import Batch, shard_rows


@dataclass(frozen=True)
class RankedAnswers:
    """The answers to one prompt, each a whole text as ids (prompt and answer), and their ranks.

    Attributes:
        ranks: lower is better; equal ranks are not compared.
        margin: how clearly the better of two answers is better (Llama 2), or None.
    """

    texts: tuple[Sequence[int], ...]
    ranks: tuple[int, ...]
    margin: float | None = None


@dataclass(frozen=True)
class RankingBatch:
    """The ranked answers of P prompts: one row for each answer, prompt after prompt.

    Attributes:
        rows: the texts, padded on the right; without targets.
        ranks_PK: the ranks of each prompt's answers in the order of the rows; −1 where a prompt has fewer than K.
        margin_P: margins, or None if no prompt has one.
    """

    rows: Batch
    ranks_PK: Int[Tensor, "P K"]
    margin_P: Float[Tensor, "P"] | None

    @property
    def target_count(self) -> int:
        """Prompts: the loss is a sum over them."""
        return len(self.ranks_PK)

    @property
    def token_count(self) -> int:
        return self.rows.token_count

    def to(self, device: torch.device | str) -> "RankingBatch":
        margin_P = None if self.margin_P is None else self.margin_P.to(device)
        return RankingBatch(self.rows.to(device), self.ranks_PK.to(device), margin_P)

    def shard(self, rank: int, world_size: int) -> "RankingBatch":
        """The prompts that process `rank` of `world_size` reads, each with all its answers."""
        mine = shard_rows(len(self.ranks_PK), rank, world_size)
        counts_P = (self.ranks_PK >= 0).sum(1)
        prompt_N = torch.repeat_interleave(torch.arange(len(counts_P), device=counts_P.device), counts_P)
        kept_N = torch.isin(prompt_N, torch.arange(len(counts_P), device=counts_P.device)[mine])
        positions = None if self.rows.positions is None else self.rows.positions[kept_N]
        rows = Batch(self.rows.tokens[kept_N], self.rows.targets[kept_N], positions)
        return RankingBatch(rows, self.ranks_PK[mine], None if self.margin_P is None else self.margin_P[mine])


class RankingBatches:
    """Batches of rankings by step number: a pure function of the step; each epoch deals the prompts out anew.

    Args:
        batch_size: the most prompts in a batch; an epoch's batches differ in size by one at most.
        context_length: the longest text allowed, in tokens.

    Raises:
        UserError: there are no rankings, a text is empty or too long, or a ranking compares nothing.
    """

    def __init__(
        self, rankings: Sequence[RankedAnswers], *, batch_size: int, seed: int, context_length: int | None = None
    ):
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not rankings:
            raise UserError("there are no rankings to learn from")
        for number, ranking in enumerate(rankings):
            where = f"ranking {number}"
            if len(ranking.texts) != len(ranking.ranks):
                raise ValueError(f"{where} has {len(ranking.texts)} answers and {len(ranking.ranks)} ranks")
            if len(set(ranking.ranks)) < 2 or min(ranking.ranks) < 0:
                raise UserError(f"{where} compares nothing", expected="two ranks that differ", got=str(ranking.ranks))
            longest, shortest = max(map(len, ranking.texts)), min(map(len, ranking.texts))
            if not shortest:
                raise UserError(f"{where} has a text without tokens")
            if context_length is not None and longest > context_length:
                raise UserError(f"{where} is too long", expected=f"at most {context_length} tokens", got=str(longest))
        self.rankings, self.batch_size, self.seed = rankings, batch_size, seed
        self.batches_per_epoch = -(-len(rankings) // batch_size)
        self._lengths_N = np.array([max(map(len, ranking.texts)) for ranking in rankings])

    def epoch_of(self, step: int) -> float:
        """How many times the rankings have been read when `step` begins."""
        return step / self.batches_per_epoch

    def __call__(self, step: int) -> RankingBatch:
        epoch, index = divmod(step, self.batches_per_epoch)
        order_N = np.random.default_rng([self.seed, epoch]).permutation(len(self.rankings))
        return self._batch(np.array_split(order_N, self.batches_per_epoch)[index])

    def once(self) -> Iterator[RankingBatch]:
        """Every ranking once, by length."""
        for numbers in np.array_split(np.argsort(self._lengths_N, kind="stable"), self.batches_per_epoch):
            yield self._batch(numbers)

    def _batch(self, numbers: np.ndarray) -> RankingBatch:
        rankings = [self.rankings[number] for number in numbers]
        rows = padded_rows([text for ranking in rankings for text in ranking.texts])
        ranks_PK = torch.full((len(rankings), max(len(ranking.ranks) for ranking in rankings)), -1)
        for row, ranking in enumerate(rankings):
            ranks_PK[row, : len(ranking.ranks)] = torch.tensor(ranking.ranks)
        margin_P = None
        if any(ranking.margin is not None for ranking in rankings):
            margin_P = torch.tensor([ranking.margin or 0.0 for ranking in rankings])
        return RankingBatch(rows, ranks_PK, margin_P)
