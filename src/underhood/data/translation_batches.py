"""Batches of pairs for an encoder–decoder: pairs of about the same length together, so that little is padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from underhood.data.batch import IGNORE, shard_rows


@dataclass(frozen=True)
class TranslationBatch:
    """Sources with what is to be written for them.

    Attributes:
        source: int64 (B, S), padded on the right.
        positions: int64 (B, S): −1 for padding; None where no row has any.
        tokens: int64 (B, T): what the decoder reads, the opening token first. Padding is on the right, where causal
            attention never sees it.
        targets: int64 (B, T): the token that should follow, or `IGNORE` for padding.
    """

    source: Tensor
    positions: Tensor | None
    tokens: Tensor
    targets: Tensor

    @property
    def target_count(self) -> int:
        """Target tokens, the closing one of each row included."""
        return int((self.targets != IGNORE).sum())

    @property
    def token_count(self) -> int:
        """Source and target tokens, padding left out."""
        sources = self.source.numel() if self.positions is None else int((self.positions >= 0).sum())
        return sources + self.target_count

    def to(self, device: Any) -> TranslationBatch:
        positions = None if self.positions is None else self.positions.to(device)
        return TranslationBatch(self.source.to(device), positions, self.tokens.to(device), self.targets.to(device))

    def shard(self, rank: int, world_size: int) -> TranslationBatch:
        """The rows that process `rank` of `world_size` reads.

        Raises:
            UserError: there are fewer rows than processes.
        """
        mine = shard_rows(len(self.source), rank, world_size)
        positions = None if self.positions is None else self.positions[mine]
        return TranslationBatch(self.source[mine], positions, self.tokens[mine], self.targets[mine])


def pad_sources(sources: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor | None]:
    """Sources (B, S), padded on the right, and their positions; None if all are of one length."""
    lengths_B1 = torch.tensor([len(source) for source in sources])[:, None]
    width = int(lengths_B1.max())
    source_BS = torch.tensor([[*source, *[0] * (width - len(source))] for source in sources])
    if int(lengths_B1.min()) == width:
        return source_BS, None
    order_S = torch.arange(width)
    return source_BS, order_S.where(order_S < lengths_B1, -1)


def translation_batch(pairs: Sequence[tuple[Sequence[int], Sequence[int]]], end_id: int) -> TranslationBatch:
    """A batch of (source, target) ids; `end_id` closes every target, and opens what the decoder reads."""
    source_BS, positions_BS = pad_sources([source for source, _ in pairs])
    width = max(len(target) for _, target in pairs) + 1
    tokens = [[end_id, *target, *[0] * (width - 1 - len(target))] for _, target in pairs]
    targets = [[*target, end_id, *[IGNORE] * (width - 1 - len(target))] for _, target in pairs]
    return TranslationBatch(source_BS, positions_BS, torch.tensor(tokens), torch.tensor(targets))


class TranslationBatches:
    """Batches by number, for `train.loop.fit`: a pure function of the pairs, the seed and the number.

    Each epoch sorts the shuffled pairs by length, cuts them into batches of at most `batch_tokens` target tokens (and
    as many source tokens), padding included, and shuffles those.
    """

    def __init__(
        self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]], *, end_id: int, batch_tokens: int, seed: int
    ):
        self.pairs, self.end_id, self.seed = pairs, end_id, seed
        self._keys_N2 = np.array([[len(source), len(target)] for source, target in pairs])
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)
        self._limit = batch_tokens

    @cached_property
    def starts(self) -> list[int]:
        """Where each batch of the sorted pairs begins; the lengths decide that, so it is the same in every epoch."""
        starts, widest = [0], 0
        for at, (source, target) in enumerate(self._keys_N2[self._sorted(np.arange(len(self.pairs)))].tolist()):
            widest = max(widest, source, target + 1)
            if (at + 1 - starts[-1]) * widest > self._limit and at > starts[-1]:
                starts.append(at)
                widest = max(source, target + 1)
        return starts

    def __len__(self) -> int:
        """Batches per epoch."""
        return len(self.starts)

    def epoch_of(self, step: int) -> float:
        """Epochs that are over after `step` batches."""
        return step / len(self)

    def _sorted(self, order_N: np.ndarray) -> np.ndarray:
        keys_N2 = self._keys_N2[order_N]
        return order_N[np.lexsort((keys_N2[:, 1], keys_N2[:, 0]))]  # equal lengths stay in their order

    def __call__(self, number: int) -> TranslationBatch:
        epoch, within = divmod(number, len(self))
        if epoch != self._epoch:
            draw = np.random.default_rng((self.seed, epoch))
            self._order = self._sorted(draw.permutation(len(self.pairs)))
            self._batches = draw.permutation(len(self))
            self._epoch = epoch
        batch = int(self._batches[within])
        end = self.starts[batch + 1] if batch + 1 < len(self) else len(self.pairs)
        rows = self._order[self.starts[batch] : end]
        return translation_batch([self.pairs[row] for row in rows.tolist()], self.end_id)
