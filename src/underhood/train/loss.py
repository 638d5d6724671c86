"""Losses: functions of a model and a batch, in nats per predicted token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.protocols import LanguageModel
from underhood.data.batch import IGNORE, Batch
from underhood.train.cross_entropy import cross_entropy


@runtime_checkable
class SplitModel(Protocol):
    """A language model whose last step, the scores of the vocabulary, can be taken apart from the rest."""

    def hidden_states(self, tokens: Tensor, *, positions: Tensor | None = None) -> Tensor: ...

    def unembed(self, x: Tensor) -> Tensor: ...


def next_token_loss(model: LanguageModel, batch: Batch) -> Tensor:
    """Mean cross-entropy of the targets that are not `IGNORE`, a scalar in nats, in fp32 or better."""
    logits_BTV = model(batch.tokens, positions=batch.positions)
    return cross_entropy(logits_BTV.flatten(0, 1), batch.targets.flatten())


def next_token_loss_sum(model: LanguageModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
    """`LossFn` of pretraining: the summed cross-entropy of the targets that are not `IGNORE`, in nats."""
    logits_BTV = model(batch.tokens, positions=batch.positions)
    return cross_entropy(logits_BTV.flatten(0, 1), batch.targets.flatten(), reduction="sum"), {}


@dataclass(frozen=True)
class Supervised:
    """What a model says where a target is given.

    Attributes:
        logits_NV: scores at the N positions that carry a loss, in row order, fp32 or better.
        targets_N: what should follow there.
        rows_N: the row of the batch that each belongs to.
    """

    logits_NV: Float[Tensor, "N V"]
    targets_N: Int[Tensor, "N"]
    rows_N: Int[Tensor, "N"]

    def nll_N(self) -> Float[Tensor, "N"]:
        """−log p(target) in nats."""
        return F.cross_entropy(self.logits_NV, self.targets_N, reduction="none")


def supervised(model: LanguageModel, batch: Batch) -> Supervised:
    """The scores of the supervised positions only; the others are never unembedded where the model allows it.

    ``supervised(model, batch).nll_N().mean()`` is `next_token_loss`. Where few positions carry a loss (answers in a
    conversation) this saves most of the unembedding, which for a small model is most of the work; where nearly all
    do, `next_token_loss` is the cheaper way to the same number.
    """
    rows_N, columns_N = (batch.targets != IGNORE).nonzero(as_tuple=True)
    if isinstance(model, SplitModel):
        hidden_BTD = model.hidden_states(batch.tokens, positions=batch.positions)
        logits_NV = model.unembed(hidden_BTD[rows_N, columns_N])
    else:
        logits_NV = model(batch.tokens, positions=batch.positions)[rows_N, columns_N]
    return Supervised(_precise(logits_NV), batch.targets[rows_N, columns_N], rows_N)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
