"""Packed chat batches: several conversations per row, attention apart, loss on the answers only.

A rendered conversation (`text.chat.Rendered`) is a list of ids and a mask of the same length that is true for the
tokens the model should learn to say. Token i is predicted from the tokens before it, so the pair becomes inputs
``ids[:-1]`` and targets ``ids[1:]``, with `IGNORE` wherever the mask of the target is false.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from underhood.core.errors import UserError
from underhood.data.batch import IGNORE, Batch
from underhood.data.pack import OPEN_ROWS, fit_rows
from underhood.text.chat import Rendered


class ChatBatches:
    """Batches of packed conversations by step number; implements `data.batch.Batches`.

    Conversations are put into rows once (best fit, in an order given by the seed); each epoch deals the rows out in an
    order of its own. Positions restart at 0 at each conversation. An epoch ends with its last row, and the next begins
    within the same batch.

    Args:
        rows: rows per batch (B).
        context: tokens per row (T).
        in_order: pack the conversations as they come, and read them so in the first epoch: for a list whose every
            stretch has the mixture that is wanted. Rows are then as long as the longest of the batch needs.
        truncate: cut conversations that are too long (their end is lost, end-of-turn token included) instead of
            leaving them out. Those without any token to learn are always left out.

    Attributes:
        kept, truncated, dropped: conversations.
        loss_tokens: tokens with loss per epoch.
        rows_per_epoch: rows that hold all conversations once.

    Raises:
        UserError: nothing is left to learn from.
    """

    def __init__(
        self,
        examples: Sequence[Rendered],
        *,
        batch_size: int,
        context_length: int,
        seed: int,
        in_order: bool = False,
        truncate: bool = False,
        pad_id: int = 0,
    ):
        self.batch_size, self.context_length, self.seed, self.pad_id = batch_size, context_length, seed, pad_id
        self.in_order = in_order
        self.kept = self.truncated = self.dropped = 0
        pieces: list[tuple[np.ndarray, np.ndarray]] = []
        for example in examples:
            tokens_T, targets_T = _shifted(example)
            too_long = len(tokens_T) > context_length
            tokens_T, targets_T = tokens_T[:context_length], targets_T[:context_length]
            if (too_long and not truncate) or not np.any(targets_T != IGNORE):
                self.dropped += 1
                continue
            self.truncated += too_long
            pieces.append((tokens_T, targets_T))
        self.kept = len(pieces)
        if not pieces:
            raise UserError(
                "no conversation is short enough to learn from",
                expected=f"at most {context_length + 1} tokens",
                got=f"{self.dropped} longer ones" if self.dropped else "no conversations at all",
                fix="Choose a larger context",
            )
        self.loss_tokens = sum(int(np.sum(targets_T != IGNORE)) for _, targets_T in pieces)
        order = np.arange(len(pieces)) if in_order else np.random.default_rng([seed]).permutation(len(pieces))
        lengths = [len(pieces[number][0]) for number in order]
        packed = fit_rows(lengths, context_length, open_rows=0 if in_order else OPEN_ROWS)
        self.rows_per_epoch = len(packed)
        shape = (len(packed), context_length)
        self._tokens_RT, self._targets_RT = np.full(shape, pad_id, np.int64), np.full(shape, IGNORE, np.int64)
        self._positions_RT = np.full(shape, -1, np.int64)
        for row, numbers in enumerate(packed):
            at = 0
            for number in numbers:
                tokens_T, targets_T = pieces[int(order[number])]
                here = slice(at, at + len(tokens_T))
                self._tokens_RT[row, here], self._targets_RT[row, here] = tokens_T, targets_T
                self._positions_RT[row, here] = np.arange(len(tokens_T))
                at += len(tokens_T)

    def epoch_of(self, step: int) -> float:
        """How many times the conversations have been read when `step` begins."""
        return step * self.batch_size / self.rows_per_epoch

    def __call__(self, step: int) -> Batch:
        wanted = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(wanted, self.rows_per_epoch)
        chosen_B = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            order = np.random.default_rng([self.seed, int(epoch), 1]).permutation(self.rows_per_epoch)
            order = np.arange(self.rows_per_epoch) if self.in_order and epoch == 0 else order
            chosen_B[epochs == epoch] = order[places[epochs == epoch]]
        used = self.context_length
        if self.in_order:
            used = int((self._positions_RT[chosen_B] >= 0).sum(axis=1).max())
        arrays = (
            self._tokens_RT[chosen_B, :used],
            self._targets_RT[chosen_B, :used],
            self._positions_RT[chosen_B, :used],
        )
        return Batch(*(torch.from_numpy(array) for array in arrays))


def padded(examples: Sequence[Rendered], *, pad_id: int = 0) -> Batch:
    """One conversation per row, padded on the right to the longest (position −1, target `IGNORE`)."""
    shifted = [_shifted(example) for example in examples]
    shape = (len(shifted), max((len(tokens_T) for tokens_T, _ in shifted), default=0))
    tokens_BT, targets_BT = np.full(shape, pad_id, np.int64), np.full(shape, IGNORE, np.int64)
    positions_BT = np.full(shape, -1, np.int64)
    for b, (tokens_T, targets_T) in enumerate(shifted):
        tokens_BT[b, : len(tokens_T)], targets_BT[b, : len(tokens_T)] = tokens_T, targets_T
        positions_BT[b, : len(tokens_T)] = np.arange(len(tokens_T))
    return Batch(torch.from_numpy(tokens_BT), torch.from_numpy(targets_BT), torch.from_numpy(positions_BT))


def _shifted(example: Rendered) -> tuple[np.ndarray, np.ndarray]:
    if len(example.ids) != len(example.mask):
        raise ValueError(f"{len(example.ids)} ids, but a mask of {len(example.mask)}")
    ids_T, said_T = np.asarray(example.ids, dtype=np.int64), np.asarray(example.mask, dtype=bool)
    targets_T = ids_T if example.targets is None else np.asarray(example.targets, dtype=np.int64)
    return ids_T[:-1], np.where(said_T[1:], targets_T[1:], IGNORE)
