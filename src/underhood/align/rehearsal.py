"""Rehearsal: fine-tuning that holds a model to its own predictions on what it is not being taught.

A model that learns one form of answer expects it everywhere after a few hundred steps (catastrophic forgetting). So
a share of its data is text on which nothing is to change: there the loss is the Kullback–Leibler divergence from the
model's own distribution before training (learning without forgetting, Li and Hoiem 2016). Unlike the loss of sampled
tokens, it is zero, without any noise, as long as nothing has changed.

Kept are the hidden states before the unembedding, a few hundred numbers for each token instead of a whole vocabulary's;
so the unembedding must be frozen, or change little.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underhood.align.sft import TrainableModel, device_of
from underhood.data.batch import IGNORE, Batch
from underhood.text.chat import Rendered
from underhood.train.chunked import unembedded_loss
from underhood.train.loss import SplitModel

ROWS = 16
"""Sequences that are read side by side."""


def remember(
    model: TrainableModel, examples: Sequence[Rendered], rehearsed: Sequence[bool]
) -> tuple[list[Rendered], Float[Tensor, "M D"]]:
    """The examples with references in place of the targets of those that are rehearsed, and the reference states.

    Every token of a rehearsed example is a target, after the first; a beginning that all of them share counts once. A
    target is the size of the vocabulary plus the row of the hidden state, in the second result, from which the model
    predicted it.

    Args:
        model: as it is before training.
        rehearsed: which examples.
    """
    assert isinstance(model, SplitModel), "rehearsal needs a model whose unembedding can be taken apart"
    kept = [wanted and len(example.ids) > 1 for example, wanted in zip(examples, rehearsed, strict=True)]
    distinct = list(dict.fromkeys(tuple(each.ids) for each, wanted in zip(examples, kept, strict=True) if wanted))
    shared = shared_beginning(distinct)
    states = states_of(model, [ids[:-1] for ids in distinct])
    first_of: dict[tuple[int, ...], int] = {}
    rows: list[Tensor] = []
    count = 0
    for ids, hidden_TD in zip(distinct, states, strict=True):
        start = shared if first_of else 0
        first_of[ids] = count - start
        rows.append(hidden_TD[start:])
        count += len(hidden_TD) - start
    changed = []
    for example, wanted in zip(examples, kept, strict=True):
        if wanted:
            ids = tuple(example.ids)
            start = 0 if ids == distinct[0] else shared
            first = model.vocab_size + first_of[ids]
            targets = [*[IGNORE] * (start + 1), *range(first + start, first + len(ids) - 1)]
            example = replace(example, mask=[at > start for at in range(len(ids))], targets=targets)
        changed.append(example)
    return changed, torch.cat(rows) if rows else torch.zeros(0, 1)


def shared_beginning(rows: Sequence[tuple[int, ...]]) -> int:
    """How many predictions all rows share, because the tokens up to there are the same (a system message, say)."""
    if len(rows) < 2:
        return 0
    first, last = min(rows), max(rows)
    same = next((at for at, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(same, min(len(row) for row in rows) - 2)


@torch.no_grad()
def states_of(model: TrainableModel, rows: Sequence[Sequence[int]]) -> list[Float[Tensor, "T D"]]:
    """The hidden states before the unembedding of each row of ids, as float32 on the CPU.

    Rows of like length are read together; what is behind a row's end changes nothing before it.
    """
    assert isinstance(model, SplitModel)
    training, device = model.training, device_of(model)
    model.train(False)
    states: list[Tensor] = [torch.empty(0)] * len(rows)
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for start in range(0, len(order), ROWS):
        numbers = order[start : start + ROWS]
        longest = len(rows[numbers[-1]])
        tokens_BT = torch.tensor([[*rows[number], *[0] * (longest - len(rows[number]))] for number in numbers])
        hidden_BTD = model.hidden_states(tokens_BT.to(device)).float().cpu()
        for number, hidden_TD in zip(numbers, hidden_BTD, strict=True):
            states[number] = hidden_TD[: len(rows[number])].clone()
    model.train(training)
    return states


class RehearsalLoss:
    """`LossFn` of fine-tuning with rehearsal: cross-entropy of answers, and divergence where a target is a reference.

    Logs `answer_accuracy`, the share of the answers' tokens that the model would have chosen itself; a rehearsed token
    counts as right where its likeliest successor is still the same.

    Args:
        reference_MD: the hidden states that `remember` gave.
        weight: of the divergence.
    """

    def __init__(self, reference_MD: Float[Tensor, "M D"], *, weight: float = 1.0):
        self.reference_MD, self.weight = reference_MD, weight

    def __call__(self, model: TrainableModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        assert isinstance(model, SplitModel)
        vocab_size = model.vocab_size
        hidden_BTD = model.hidden_states(batch.tokens, positions=batch.positions)
        learnt_BT = (batch.targets != IGNORE) & (batch.targets < vocab_size)
        held_BT = batch.targets >= vocab_size
        unembed = getattr(model, "unembed")  # noqa: B009  # a module here, a function in the protocol
        loss, right = unembedded_loss(hidden_BTD[learnt_BT], unembed, batch.targets[learnt_BT], vocab_size=vocab_size)
        if held_BT.any():
            rows_N = (batch.targets[held_BT] - vocab_size).to(self.reference_MD.device)
            reference_ND = self.reference_MD[rows_N].to(hidden_BTD.device, hidden_BTD.dtype)
            with torch.no_grad():
                before_NV = unembed(reference_ND).float().log_softmax(dim=-1)
            now_NV = unembed(hidden_BTD[held_BT]).float().log_softmax(dim=-1)
            loss = loss + self.weight * F.kl_div(now_NV, before_NV, log_target=True, reduction="sum")
            right += int((now_NV.argmax(dim=-1) == before_NV.argmax(dim=-1)).sum())
        return loss, {"answer_accuracy": right}
