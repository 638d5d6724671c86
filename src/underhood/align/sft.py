"""Supervised fine-tuning: the language model's own loss, on the answers only.

The conversation is read whole, but only the tokens that the assistant should write are targets (Ouyang et al. 2022,
step 1): the model learns to answer, not to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from underhood.align.unlikelihood import answers_of, repetition_loss
from underhood.core.protocols import LanguageModel
from underhood.data.batch import IGNORE, Batch
from underhood.train.chunked import unembedded_loss
from underhood.train.loss import SplitModel, supervised


class TrainableModel(LanguageModel, Protocol):
    """A language model that is a PyTorch module."""

    training: bool

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self, mode: bool = True) -> Any: ...


@dataclass(frozen=True, kw_only=True)
class SFTLoss:
    """`LossFn` of supervised fine-tuning: the loss over the supervised targets (those that are not `IGNORE`).

    Logs `answer_accuracy`, the share of answer tokens that the model would have chosen itself. Where the model can be
    taken apart, only answers are unembedded, slice by slice.

    Attributes:
        unlikelihood: weight of the loss on what the answer has said before (`align.unlikelihood`).
    """

    unlikelihood: float = 0.0

    def __call__(self, model: TrainableModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        unembed = getattr(model, "unembed", None)
        if self.unlikelihood == 0 and isinstance(model, SplitModel) and isinstance(unembed, nn.Module):
            learnt_BT = batch.targets != IGNORE
            hidden_ND = model.hidden_states(batch.tokens, positions=batch.positions)[learnt_BT]
            loss, right = unembedded_loss(hidden_ND, unembed, batch.targets[learnt_BT], vocab_size=model.vocab_size)
            return loss, {"answer_accuracy": right}
        answers = supervised(model, batch)
        logp_NV = answers.logits_NV.log_softmax(dim=-1)
        loss = -logp_NV.gather(1, answers.targets_N[:, None]).sum()
        if self.unlikelihood:
            repeated = repetition_loss(logp_NV, answers.targets_N, answers_of(batch))
            loss = loss + self.unlikelihood * answers.targets_N.numel() * repeated
        return loss, {"answer_accuracy": int((logp_NV.argmax(dim=-1) == answers.targets_N).sum())}


def device_of(model: TrainableModel) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device
