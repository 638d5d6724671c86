"""What one model gives to given tokens: the measurement that loss, multiple choice and preference all rest on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import Decoder
from underhood.models.ngram import NGram

LOGITS_AT_ONCE = 1 << 24
"""Scores held at a time: 16 M floats are 64 MB, whatever the vocabulary."""


@dataclass(frozen=True)
class Continuation:
    """Tokens to be scored, and what stands before them (at least one token).

    Attributes:
        context: read, not scored.
        tokens: scored, each given everything before it.
    """

    context: tuple[int, ...]
    tokens: tuple[int, ...]


@contextmanager
def evaluating(model: LanguageModel) -> Iterator[None]:
    """No gradients and evaluation mode inside; the model's own mode again afterwards."""
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        if isinstance(model, nn.Module):
            model.train(training)


def target_log_probs(model: LanguageModel, batch: Batch) -> Float[Tensor, "B T"]:
    """log p of every target in nats, float32 on the batch's device; 0 where the target is `IGNORE`.

    A decoder works out scores only where a target is, which is where most of a small model's time goes.
    """
    if isinstance(model, NGram):
        logs_BT = model.target_log_probs(batch.tokens, batch.targets, positions=batch.positions)
        return logs_BT.float()
    at_BT = batch.targets != IGNORE
    targets_N = batch.targets[at_BT]
    if isinstance(model, Decoder):
        hidden_ND = model.hidden(batch.tokens, positions=batch.positions)[at_BT]
        step = max(1, LOGITS_AT_ONCE // model.vocab_size)
        parts = [
            _log_probs(model.unembed(hidden_ND[first : first + step]), targets_N[first : first + step])
            for first in range(0, len(targets_N), step)
        ]
        logs_N = torch.cat(parts) if parts else torch.zeros(0, device=targets_N.device)
    else:
        logs_N = _log_probs(model(batch.tokens, positions=batch.positions)[at_BT], targets_N)
    logs_BT = torch.zeros(batch.targets.shape, device=logs_N.device)
    logs_BT[at_BT] = logs_N
    return logs_BT


def score_continuations(
    model: LanguageModel,
    continuations: Sequence[Continuation],
    *,
    batch_tokens: int = 8192,
    device: torch.device | str = "cpu",
) -> NDArray[np.float64]:
    """Σ log p of each continuation's tokens (nats), in the order given.

    Pieces of like length go together, padded on the right with position −1; a batch holds at most `batch_tokens`
    tokens, padding included. A context too long for the model loses its oldest tokens.

    Raises:
        UserError: an empty context or continuation, or a continuation longer than the model's context.
    """
    rows = [_row(number, one, model.context) for number, one in enumerate(continuations)]
    totals_N = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]), reverse=True)
    with evaluating(model):
        first = 0
        while first < len(order):
            width = len(rows[order[first]]) - 1
            chosen = order[first : first + max(1, batch_tokens // width)]
            batch = _batch([rows[number] for number in chosen], [len(continuations[n].tokens) for n in chosen])
            logs_BT = target_log_probs(model, batch.to(device))
            totals_N[chosen] = logs_BT.double().sum(dim=1).cpu().numpy()
            first += len(chosen)
    return totals_N


def _log_probs(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return -F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


def _row(number: int, one: Continuation, context: int | None) -> list[int]:
    if not one.context or not one.tokens:
        what = "context" if not one.context else "continuation"
        raise UserError(f"item {number} has an empty {what}", expected="at least one token")
    if context is not None and len(one.tokens) > context:
        raise UserError(
            f"the continuation of item {number} is longer than the model's context",
            expected=f"at most {context} tokens",
            got=str(len(one.tokens)),
        )
    row = [*one.context, *one.tokens]
    return row if context is None else row[-(context + 1) :]  # the last token is scored, never read


def _batch(rows: list[list[int]], scored: list[int]) -> Batch:
    """Rows side by side, the longest first; only the last `scored` tokens of each are targets."""
    shape = (len(rows), len(rows[0]) - 1)
    tokens_BT, targets_BT, positions_BT = np.zeros(shape, np.int64), np.full(shape, IGNORE), np.full(shape, -1)
    for b, (row, count) in enumerate(zip(rows, scored, strict=True)):
        width = len(row) - 1
        tokens_BT[b, :width] = row[:-1]
        targets_BT[b, width - count : width] = row[-count:]
        positions_BT[b, :width] = np.arange(width)
    even = len(rows[-1]) == len(rows[0])
    positions = None if even else torch.from_numpy(positions_BT)
    return Batch(torch.from_numpy(tokens_BT), torch.from_numpy(targets_BT), positions)
