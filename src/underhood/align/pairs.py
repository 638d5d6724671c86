"""Pairs of a better and a worse answer, as batches that a training step finds by its number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.data.batch import IGNORE, Batch, shard_rows

Marked = tuple[Sequence[int], Sequence[bool]]
"""A conversation's ids and, for each id, whether it is part of the answer that is judged."""


@dataclass(frozen=True)
class PairBatch:
    """N preference pairs as 2N rows: the chosen answers first, then the rejected ones in the same order.

    Attributes:
        pairs_N: the numbers of the pairs.
        rows: their tokens.
    """

    pairs_N: Tensor
    rows: Batch

    @property
    def target_count(self) -> int:
        """Pairs: the loss is a sum over them."""
        return len(self.pairs_N)

    @property
    def token_count(self) -> int:
        return self.rows.token_count

    def to(self, device: torch.device | str) -> "PairBatch":
        return PairBatch(self.pairs_N.to(device), self.rows.to(device))

    def shard(self, rank: int, world_size: int) -> "PairBatch":
        """The pairs that process `rank` of `world_size` reads."""
        mine = shard_rows(len(self.pairs_N), rank, world_size)
        tokens, targets, positions = (
            torch.cat([half[mine] for half in tensor.chunk(2)])
            for tensor in (self.rows.tokens, self.rows.targets, self.rows.positions)
            if tensor is not None
        )
        return PairBatch(self.pairs_N[mine], Batch(tokens, targets, positions))


class PairBatches:
    """Batches of preference pairs by step number: a pure function of the step.

    A batch holds up to `rows` pairs in twice as many rows: the chosen answers first, then the rejected ones in the
    same order. Rows are padded at their end to the longest of the batch (target `IGNORE`, position −1). Pairs of like
    length come together, which keeps the padding small: each epoch sorts the pairs by their length blurred by a random
    tenth, cuts that order into batches whose sizes differ by one at most, and shuffles the batches. So every pair is
    seen once per epoch, in company that changes.

    Args:
        pairs: (chosen, rejected), each as ids and answer mask.
        rows: the most pairs in a batch.
        context: the longest conversation allowed, in tokens.

    Raises:
        UserError: there are no pairs, one is longer than `context`, or one has an answer without tokens.
    """

    def __init__(
        self, pairs: Sequence[tuple[Marked, Marked]], *, batch_size: int, seed: int, context_length: int | None = None
    ):
        if batch_size < 1:
            raise ValueError(f"rows must be at least 1, got {batch_size}")
        if not pairs:
            raise UserError("there are no preference pairs to learn from")
        for number, pair in enumerate(pairs):
            for which, (ids, mask) in zip(("chosen", "rejected"), pair, strict=True):
                where = f"the {which} answer of preference pair {number}"
                if len(ids) != len(mask):
                    raise ValueError(f"{where} has {len(ids)} ids and a mask of {len(mask)}")
                if not any(mask[1:]):
                    raise UserError(f"{where} has no tokens", expected="at least one after the question")
                if context_length is not None and len(ids) - 1 > context_length:
                    raise UserError(
                        f"{where} is too long", expected=f"at most {context_length + 1} tokens", got=str(len(ids))
                    )
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.batches_per_epoch = -(-len(pairs) // batch_size)
        self._lengths_N = np.array([max(len(chosen[0]), len(rejected[0])) for chosen, rejected in pairs])
        self._epoch: tuple[int, list[np.ndarray]] | None = None

    def epoch_of(self, step: int) -> float:
        """How many times the pairs have been read when `step` begins."""
        return step / self.batches_per_epoch

    def __call__(self, step: int) -> PairBatch:
        epoch, index = divmod(step, self.batches_per_epoch)
        if self._epoch is None or self._epoch[0] != epoch:
            self._epoch = (epoch, self._order(epoch))
        return self._batch(self._epoch[1][index])

    def once(self) -> Iterator[PairBatch]:
        """Every pair once, by length."""
        for chunk_N in self._cut(np.argsort(self._lengths_N, kind="stable")):
            yield self._batch(chunk_N)

    def _order(self, epoch: int) -> list[np.ndarray]:
        generator = np.random.default_rng([self.seed, epoch])
        blurred_N = self._lengths_N * generator.uniform(0.9, 1.1, len(self.pairs))
        batches = self._cut(np.argsort(blurred_N, kind="stable"))
        return [batches[i] for i in generator.permutation(len(batches))]

    def _cut(self, order_N: np.ndarray) -> list[np.ndarray]:
        return np.array_split(order_N, self.batches_per_epoch)

    def _batch(self, pairs_N: np.ndarray) -> PairBatch:
        sides = [self.pairs[n][side] for side in (0, 1) for n in pairs_N]
        shape = (len(sides), max(len(ids) for ids, _ in sides) - 1)
        tokens_BT, targets_BT = np.zeros(shape, np.int64), np.full(shape, IGNORE, np.int64)
        positions_BT = np.full(shape, -1, np.int64)
        for row, (ids, mask) in enumerate(sides):
            count = len(ids) - 1
            tokens_BT[row, :count] = ids[:-1]
            targets_BT[row, :count] = np.where(np.asarray(mask[1:], bool), np.asarray(ids[1:]), IGNORE)
            positions_BT[row, :count] = np.arange(count)
        batch = Batch(torch.from_numpy(tokens_BT), torch.from_numpy(targets_BT), torch.from_numpy(positions_BT))
        return PairBatch(torch.from_numpy(pairs_N), batch)
