"""Sequence packing: documents as training rows, and as sliding windows for evaluation.

Both read a document as ``[eot, t1 … tn]`` with the targets ``[t1 … tn, eot]``: the end-of-text token that closes one
document also opens the next (as in GPT-2), so a model learns how texts begin, every stored token is a target exactly
once, and no target ever belongs to another document than its input. Positions restart at 0 at each opening token;
attention follows positions and stays inside documents (see `core.protocols.LanguageModel`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from underhood.data.batch import IGNORE, Batch
from underhood.data.shards import TokenShards


class PackedBatches:
    """Training batches (rows, context) by step number; implements `data.batch.Batches`.

    Each epoch puts the documents in an order of its own, joins them, cuts the whole into rows of `context` tokens, and
    deals the rows out in an order of their own, so that a long document doesn't fill a batch. Both orders depend on
    (seed, epoch) only. A row that begins inside a document starts at position 0 there. Only an epoch's last row can
    hold padding (position −1); epochs follow one another without a gap.

    Args:
        rows: rows per batch (B).
        context: tokens per row (T).
        shuffle: False keeps documents and rows in order of storage.
    """

    def __init__(self, shards: TokenShards, *, batch_size: int, context_length: int, seed: int, shuffle: bool = True):
        if shards.tokens == 0:
            raise ValueError("no tokens to pack")
        self.shards, self.batch_size, self.context_length, self.seed, self.shuffle = (
            shards,
            batch_size,
            context_length,
            seed,
            shuffle,
        )
        self.rows_per_epoch = -(-shards.tokens // context_length)
        self._start_N = np.concatenate([[0], np.cumsum(shards.lengths_N)[:-1]])
        self._epoch: tuple[int, np.ndarray, np.ndarray, np.ndarray] | None = None

    def epoch_of(self, step: int) -> float:
        """How many times the corpus has been read when `step` begins."""
        return step * self.batch_size / self.rows_per_epoch

    def __call__(self, step: int) -> Batch:
        first = step * self.batch_size
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        taken = 0
        while taken < self.batch_size:
            epoch, row = divmod(first + taken, self.rows_per_epoch)
            count = min(self.batch_size - taken, self.rows_per_epoch - row)
            parts.append(self._read(epoch, row, count))
            taken += count
        tokens, targets, positions = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets), torch.from_numpy(positions))

    def _read(self, epoch: int, row: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        order_N, begin_N, row_order = self._orders(epoch)
        rows_B = row_order[row : row + count]
        column_T = np.arange(self.context_length)
        place_BT = rows_B[:, None] * self.context_length + column_T  # of the target, in this epoch's joined sequence
        beyond_BT = place_BT >= self.shards.tokens
        place_BT = np.minimum(place_BT, self.shards.tokens - 1)
        which_BT = np.searchsorted(begin_N, place_BT, side="right") - 1
        inside_BT = place_BT - begin_N[which_BT]
        stored_BT = self._start_N[order_N[which_BT]] + inside_BT
        targets_BT = self.shards.gather(stored_BT)
        tokens_BT = np.empty_like(targets_BT)
        tokens_BT[:, 1:] = targets_BT[:, :-1]
        tokens_BT[:, 0] = self.shards.gather(np.maximum(stored_BT[:, 0] - 1, 0))
        tokens_BT[inside_BT == 0] = self.shards.eot_id
        positions_BT = np.minimum(inside_BT, column_T)
        if beyond_BT.any():
            tokens_BT[beyond_BT], targets_BT[beyond_BT], positions_BT[beyond_BT] = self.shards.eot_id, IGNORE, -1
        return tokens_BT, targets_BT, positions_BT

    def _orders(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Order of the documents, where each begins in the joined sequence, and order of the rows."""
        if self._epoch is None or self._epoch[0] != epoch:
            documents = len(self.shards)
            if self.shuffle:
                generator = np.random.default_rng([self.seed, epoch])
                order_N, row_order = generator.permutation(documents), generator.permutation(self.rows_per_epoch)
            else:
                order_N, row_order = np.arange(documents), np.arange(self.rows_per_epoch)
            begin_N = np.concatenate([[0], np.cumsum(self.shards.lengths_N[order_N])[:-1]])
            self._epoch = (epoch, order_N, begin_N, row_order)
        return self._epoch[1:]


OPEN_ROWS = 32
"""Rows among which `fit_rows` looks for the best fit."""


def fit_rows(lengths: Sequence[int], capacity: int, *, open_rows: int = OPEN_ROWS) -> list[list[int]]:
    """Puts pieces into rows of `capacity` tokens; returns the pieces of each row by number.

    Best fit in order of arrival among the `open_rows` fullest rows still open: rows come out about 90 % full for mixed
    lengths, in linear time. With 0 open rows neighbours stay together (next fit): a row ends where a piece doesn't fit.
    """
    if open_rows == 0:
        return _next_fit(lengths, capacity)
    done: list[list[int]] = []
    open_: list[tuple[int, list[int]]] = []  # (room left, pieces), the least room first
    for number, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"piece {number} has {length} tokens, a row holds {capacity}")
        chosen = next((index for index, (room, _) in enumerate(open_) if room >= length), None)
        room, pieces = (capacity, []) if chosen is None else open_.pop(chosen)
        pieces.append(number)
        room -= length
        if room == 0:
            done.append(pieces)
            continue
        open_.append((room, pieces))
        open_.sort(key=lambda row: row[0])
        if len(open_) > open_rows:
            done.append(open_.pop(0)[1])
    return done + [pieces for _, pieces in open_]


def _next_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    rows: list[list[int]] = []
    room = 0
    for number, length in enumerate(lengths):
        if length > capacity:
            raise ValueError(f"piece {number} has {length} tokens, a row holds {capacity}")
        if not rows or length > room:
            rows.append([])
            room = capacity
        rows[-1].append(number)
        room -= length
    return rows


class EvaluationWindows:
    """Held-out documents in windows, so that every token is scored exactly once with as much left context as fits.

    A document longer than `context` is read in windows that advance by `stride`: the first scores all its tokens, each
    later one only its last `stride`, which see at least ``context − stride`` tokens to their left. Several short
    windows share a row. Iterating gives batches; divide the summed loss (nats) by ``bytes · ln 2`` for bits per byte.

    Args:
        documents: ids of each document, the end-of-text token last (as `TokenShards.document` gives them).
        byte_counts: UTF-8 length of each document's text.
        stride: default half the context.

    Attributes:
        bytes: bytes of text in all documents.
        byte_counts_N: bytes of text in each document.
        tokens: targets scored in all (every stored token once).
    """

    def __init__(
        self,
        documents: Sequence[Sequence[int] | np.ndarray],
        byte_counts: Sequence[int] | np.ndarray,
        *,
        eot_id: int,
        context_length: int,
        batch_size: int = 16,
        stride: int | None = None,
    ):
        if len(documents) != len(byte_counts):
            raise ValueError(f"{len(documents)} documents, {len(byte_counts)} byte counts")
        stride = max(1, context_length // 2) if stride is None else stride
        if not 1 <= stride <= context_length:
            raise ValueError(f"stride must be between 1 and the context length {context_length}, got {stride}")
        self._documents = [np.asarray(ids, dtype=np.int64) for ids in documents]
        self.eot_id, self.context_length, self.batch_size = eot_id, context_length, batch_size
        self.byte_counts_N = np.asarray(byte_counts, dtype=np.int64)
        self.bytes = int(self.byte_counts_N.sum())
        self.tokens = sum(len(ids) for ids in self._documents)
        self._windows = [
            w for n, ids in enumerate(self._documents) for w in _windows(n, len(ids), context_length, stride)
        ]
        self._rows = fit_rows([end - start for _, start, end, _ in self._windows], context_length)

    @classmethod
    def of_shards(
        cls, shards: TokenShards, *, context_length: int, batch_size: int = 16, stride: int | None = None
    ) -> "EvaluationWindows":
        """All documents of a folder of shards."""
        documents = [shards.document(number) for number in range(len(shards))]
        return cls(
            documents,
            shards.byte_counts_N,
            eot_id=shards.eot_id,
            context_length=context_length,
            batch_size=batch_size,
            stride=stride,
        )

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self._rows) // self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        for first in range(0, len(self._rows), self.batch_size):
            rows = self._rows[first : first + self.batch_size]
            shape = (len(rows), self.context_length)
            tokens_BT, targets_BT = np.full(shape, self.eot_id, np.int64), np.full(shape, IGNORE, np.int64)
            positions_BT = np.full(shape, -1, np.int64)
            for b, windows in enumerate(rows):
                t = 0
                for number in windows:
                    document, start, end, scored = self._windows[number]
                    ids, length = self._documents[document], end - start
                    tokens_BT[b, t] = ids[start - 1] if start > 0 else self.eot_id
                    tokens_BT[b, t + 1 : t + length] = ids[start : end - 1]
                    targets_BT[b, t + scored - start : t + length] = ids[scored:end]
                    positions_BT[b, t : t + length] = np.arange(length)
                    t += length
            yield Batch(torch.from_numpy(tokens_BT), torch.from_numpy(targets_BT), torch.from_numpy(positions_BT))

    def owners(self) -> Iterator[torch.Tensor]:
        """For each batch in turn, the number of the document that each scored target belongs to; −1 elsewhere."""
        for first in range(0, len(self._rows), self.batch_size):
            rows = self._rows[first : first + self.batch_size]
            owners_BT = torch.full((len(rows), self.context_length), -1)
            for b, windows in enumerate(rows):
                t = 0
                for number in windows:
                    document, start, end, scored = self._windows[number]
                    owners_BT[b, t + scored - start : t + end - start] = document
                    t += end - start
            yield owners_BT


def _windows(document: int, length: int, context: int, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """(document, first target, end, first target that is scored) of each window over `length` targets."""
    end = min(context, length)
    yield document, 0, end, 0
    while end < length:
        scored, end = end, min(end + stride, length)
        yield document, end - context, end, scored
