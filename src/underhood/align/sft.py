"""Supervised fine-tuning: the language model's own loss, on the answers only.

The conversation is read whole, but only the tokens that the assistant should write are targets (Ouyang et al. 2022,
step 1): the model learns to answer, not to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from underhood.align.unlikelihood import answers_of, repetition_loss
from underhood.core.protocols import LanguageModel
from underhood.data.batch import IGNORE, Batch, Batches
from underhood.train.chunked import unembedded_loss
from underhood.train.loop import LOSS_WEIGHT, LossFn
from underhood.train.loss import SplitModel, supervised


class TrainableModel(LanguageModel, Protocol):
    """A language model that is a PyTorch module."""

    training: bool

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self, mode: bool = True) -> Any: ...


def sft_step(model: TrainableModel, batches: Batches, *, unlikelihood: float = 0.0) -> LossFn:
    """The step for `train.loop.fit`: mean loss over the batch's supervised targets.

    Args:
        batches: batches whose targets are `IGNORE` outside the answers (`data.render.ChatBatches`).
        unlikelihood: weight of the loss on what the answer has said before (`align.unlikelihood`).

    Logs `answer_accuracy`, the share of answer tokens that the model would have chosen itself, and `targets`, how many
    answer tokens there are. Where the model can be taken apart, only answers are unembedded, slice by slice.
    """

    def step_loss(step: int) -> tuple[Tensor, int, dict[str, float]]:
        batch = batches(step).to(device_of(model))
        loss, right, count = _varied(model, batch, unlikelihood) if unlikelihood else _answers(model, batch)
        return loss, tokens_read(batch), {"answer_accuracy": right / max(1, count), LOSS_WEIGHT: count}

    return step_loss


def _answers(model: TrainableModel, batch: Batch) -> tuple[Tensor, int, int]:
    """Mean loss of the supervised targets, how many of them the model would have chosen, and how many there are."""
    unembed = getattr(model, "unembed", None)
    if isinstance(model, SplitModel) and isinstance(unembed, nn.Module):
        learnt_BT = batch.targets != IGNORE
        hidden_ND = model.hidden_states(batch.tokens, positions=batch.positions)[learnt_BT]
        loss, right = unembedded_loss(hidden_ND, unembed, batch.targets[learnt_BT], vocab_size=model.vocab_size)
        return loss, right, hidden_ND.shape[0]
    said = supervised(model, batch)
    right = int((said.logits_NV.argmax(dim=-1) == said.targets_N).sum())
    return said.nll_N().mean(), right, said.targets_N.numel()


def _varied(model: TrainableModel, batch: Batch, weight: float) -> tuple[Tensor, int, int]:
    """As `_answers`, with the loss on repetition added to the mean."""
    said = supervised(model, batch)
    logp_NV = said.logits_NV.log_softmax(dim=-1)
    nll = -logp_NV.gather(1, said.targets_N[:, None]).mean()
    right = int((logp_NV.argmax(dim=-1) == said.targets_N).sum())
    return nll + weight * repetition_loss(logp_NV, said.targets_N, answers_of(batch)), right, said.targets_N.numel()


def tokens_read(batch: Batch) -> int:
    """Tokens in a batch, padding left out."""
    return batch.tokens.numel() if batch.positions is None else int((batch.positions >= 0).sum())


def device_of(model: TrainableModel) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device
