"""Log-probabilities of given tokens, the measurement under loss, multiple choice and preference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.protocols import HiddenStateModel, LanguageModel
from underhood.data.batch import IGNORE, Batch
from underhood.models.mixture import Mixture
from underhood.models.ngram import NGram

LOGITS_AT_ONCE = 1 << 24
"""Scores held at a time: 16 M floats are 64 MB, whatever the vocabulary."""


@dataclass(frozen=True)
class Continuation:
    """Tokens to be scored, and their context (at least one token).

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
    if isinstance(model, NGram | Mixture):
        logs_BT = model.target_log_probs(batch.tokens, batch.targets, positions=batch.positions)
        return logs_BT.float()
    return _at_targets(model, batch, _log_probs)


def target_is_best(model: LanguageModel, batch: Batch) -> Float[Tensor, "B T"]:
    """1 where the target is the token that the model finds likeliest, 0 elsewhere, and 0 where it is `IGNORE`."""
    return _at_targets(model, batch, lambda logits_NV, targets_N: (logits_NV.argmax(-1) == targets_N).float())


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
    return _sums(model, continuations, target_log_probs, batch_tokens, device)


def greedy_continuations(
    model: LanguageModel,
    continuations: Sequence[Continuation],
    *,
    batch_tokens: int = 8192,
    device: torch.device | str = "cpu",
) -> NDArray[np.bool_]:
    """Whether the model, always taking the likeliest token, would write each continuation; see `score_continuations`.

    Raises:
        UserError: as there.
    """
    lengths_N = np.array([len(continuation.tokens) for continuation in continuations])
    return _sums(model, continuations, target_is_best, batch_tokens, device) == lengths_N


def _sums(
    model: LanguageModel,
    continuations: Sequence[Continuation],
    measure: Callable[[LanguageModel, Batch], Tensor],
    batch_tokens: int,
    device: torch.device | str,
) -> NDArray[np.float64]:
    """Σ of a measure of every target (B, T) over each continuation."""
    rows = [_row(number, continuation, model.context_length) for number, continuation in enumerate(continuations)]
    totals_N = np.zeros(len(rows))
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]), reverse=True)
    with evaluating(model):
        first = 0
        while first < len(order):
            width = len(rows[order[first]]) - 1
            chosen = order[first : first + max(1, batch_tokens // width)]
            batch = _batch([rows[number] for number in chosen], [len(continuations[n].tokens) for n in chosen])
            totals_N[chosen] = measure(model, batch.to(device)).double().sum(dim=1).cpu().numpy()
            first += len(chosen)
    return totals_N


def _at_targets(model: LanguageModel, batch: Batch, measure: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``measure(logits_NV, targets_N)`` where there are targets, 0 elsewhere, as (B, T)."""
    at_BT = batch.targets != IGNORE
    targets_N = batch.targets[at_BT]
    if isinstance(model, HiddenStateModel):
        hidden_ND = model.hidden_states(batch.tokens, positions=batch.positions)[at_BT]
        step = max(1, LOGITS_AT_ONCE // model.vocab_size)
        parts = [
            measure(model.unembed(hidden_ND[first : first + step]), targets_N[first : first + step])
            for first in range(0, len(targets_N), step)
        ]
        values_N = torch.cat(parts) if parts else torch.zeros(0, device=targets_N.device)
    else:
        values_N = measure(model(batch.tokens, positions=batch.positions)[at_BT], targets_N)
    values_BT = torch.zeros(batch.targets.shape, device=values_N.device)
    values_BT[at_BT] = values_N
    return values_BT


def _log_probs(logits_NV: Tensor, targets_N: Tensor) -> Tensor:
    return -F.cross_entropy(logits_NV.float(), targets_N, reduction="none")


def _row(number: int, continuation: Continuation, context: int | None) -> list[int]:
    if not continuation.context or not continuation.tokens:
        what = "context" if not continuation.context else "continuation"
        raise UserError(f"item {number} has an empty {what}", expected="at least one token")
    if context is not None and len(continuation.tokens) > context:
        raise UserError(
            f"the continuation of item {number} is longer than the model's context",
            expected=f"at most {context} tokens",
            got=str(len(continuation.tokens)),
        )
    row = [*continuation.context, *continuation.tokens]
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
