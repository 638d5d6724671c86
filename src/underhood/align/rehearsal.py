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

READ_WEIGHT, ANSWER_WEIGHT = 0.25, 2.0
"""Weights of the divergence where a text is read, and where it is answered: answers are to change least."""


def remember(
    model: TrainableModel, examples: Sequence[Rendered], rehearsed: Sequence[bool]
) -> tuple[list[Rendered], Float[Tensor, "M D"]]:
    """The examples with references in place of the targets of those that are rehearsed, and the reference states.

    Every token of a rehearsed example is a target, after the first; a beginning shared with an earlier one counts once.
    A target is the size of the vocabulary plus the row of the hidden state, in the second result, from which the model
    predicted it.

    Args:
        model: as it is before training.
        rehearsed: which examples.
    """
    assert isinstance(model, SplitModel), "rehearsal needs a model whose unembedding can be taken apart"
    kept = [wanted and len(example.ids) > 1 for example, wanted in zip(examples, rehearsed, strict=True)]
    distinct = list(dict.fromkeys(tuple(each.ids) for each, wanted in zip(examples, kept, strict=True) if wanted))
    states = states_of(model, [ids[:-1] for ids in distinct])
    row_of: dict[tuple[int, ...], int] = {}  # by all that is read before the prediction
    new_of: dict[tuple[int, ...], list[int]] = {}
    rows: list[Tensor] = []
    for ids, hidden_TD in zip(distinct, states, strict=True):
        new_of[ids] = [at for at in range(len(hidden_TD)) if ids[: at + 1] not in row_of]
        for at in new_of[ids]:
            row_of[ids[: at + 1]] = len(row_of)
        rows.append(hidden_TD[new_of[ids]])
    changed = []
    for example, wanted in zip(examples, kept, strict=True):
        if wanted:
            ids = tuple(example.ids)
            targets = [IGNORE] * len(ids)
            for at in new_of[ids]:
                targets[at + 1] = model.vocab_size + row_of[ids[: at + 1]]
            example = replace(example, mask=[target != IGNORE for target in targets], targets=targets)
        changed.append(example)
    return changed, torch.cat(rows) if rows else torch.zeros(0, 1)


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


def rehearsal_weights(
    before: Sequence[Rendered], after: Sequence[Rendered], vocab_size: int, count: int
) -> Float[Tensor, "M"]:
    """The weight of each reference's divergence: `ANSWER_WEIGHT` where the model answers, `READ_WEIGHT` elsewhere.

    A text without a question is read, not answered.

    Args:
        before, after: the examples as `remember` got and gave them.
        count: of the references.
    """
    weights_M = torch.full((count,), READ_WEIGHT)
    for example, changed in zip(before, after, strict=True):
        if changed.targets is not None and not all(example.mask):
            for answered, target in zip(example.mask, changed.targets, strict=True):
                if answered and target >= vocab_size:
                    weights_M[target - vocab_size] = ANSWER_WEIGHT
    return weights_M


class RehearsalLoss:
    """`LossFn` of fine-tuning with rehearsal: cross-entropy of answers, and divergence where a target is a reference.

    Logs `answer_accuracy`, the share of the answers' tokens that the model would have chosen itself; a rehearsed token
    counts as right where its likeliest successor is still the same.

    Args:
        reference_MD: the hidden states that `remember` gave.
        weights_M: of each one's divergence; None means 1.
    """

    def __init__(self, reference_MD: Float[Tensor, "M D"], weights_M: Float[Tensor, "M"] | None = None):
        self.reference_MD = reference_MD
        self.weights_M = torch.ones(len(reference_MD)) if weights_M is None else weights_M

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
            weights_N = self.weights_M[rows_N].to(now_NV)
            divergence_N = F.kl_div(now_NV, before_NV, log_target=True, reduction="none").sum(dim=-1)
            loss = loss + (weights_N * divergence_N).sum()
            right += int((now_NV.argmax(dim=-1) == before_NV.argmax(dim=-1)).sum())
        return loss, {"answer_accuracy": right}
