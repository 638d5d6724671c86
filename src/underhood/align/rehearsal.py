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


@torch.no_grad()
def remember(
    model: TrainableModel, examples: Sequence[Rendered], rehearsed: Sequence[bool]
) -> tuple[list[Rendered], Float[Tensor, "M D"]]:
    """The examples with references in place of the targets of those that are rehearsed, and the reference states.

    Every token of a rehearsed example is a target, after the first. Its target is the size of the vocabulary plus the
    row of the hidden state, in the second result, from which the model predicted it.

    Args:
        model: as it is before training.
        rehearsed: which examples.
    """
    assert isinstance(model, SplitModel), "rehearsal needs a model whose unembedding can be taken apart"
    training, device = model.training, device_of(model)
    model.train(False)
    states: list[Tensor] = []
    first_of: dict[tuple[int, ...], int] = {}
    changed: list[Rendered] = []
    count = 0
    for example, wanted in zip(examples, rehearsed, strict=True):
        if not wanted or len(example.ids) < 2:
            changed.append(example)
            continue
        ids = tuple(example.ids)
        if ids not in first_of:
            hidden_1TD = model.hidden_states(torch.tensor([ids[:-1]], device=device))
            states.append(hidden_1TD[0].float().cpu())
            first_of[ids], count = count, count + len(ids) - 1
        first = model.vocab_size + first_of[ids]
        targets = [IGNORE, *range(first, first + len(ids) - 1)]
        changed.append(replace(example, mask=[False] + [True] * (len(ids) - 1), targets=targets))
    model.train(training)
    return changed, torch.cat(states) if states else torch.zeros(0, 1)


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
