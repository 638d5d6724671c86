"""Supervised fine-tuning: the language model's own loss, on the answers only.

The conversation is read whole, but only the tokens that the assistant should write are targets (Ouyang et al. 2022,
step 1): the model learns to answer, not to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from underhood.core.protocols import LanguageModel
from underhood.data.batch import Batch, Batches
from underhood.train.loop import Step
from underhood.train.loss import supervised


class TrainableModel(LanguageModel, Protocol):
    """A language model that is a PyTorch module."""

    training: bool

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def train(self, mode: bool = True) -> Any: ...


def sft_step(model: TrainableModel, batches: Batches) -> Step:
    """The step for `train.loop.fit`: mean loss over the batch's supervised targets.

    Args:
        batches: batches whose targets are `IGNORE` outside the answers (`data.render.ChatBatches`).

    Logs `answer_accuracy`, the share of answer tokens that the model would have chosen itself, and `answer_tokens`.
    """

    def step_loss(step: int) -> tuple[Tensor, int, dict[str, float]]:
        batch = batches(step).to(device_of(model))
        said = supervised(model, batch)
        with torch.no_grad():
            right = (said.logits_NV.argmax(dim=-1) == said.targets_N).float().mean()
        extra = {"answer_accuracy": float(right), "answer_tokens": said.targets_N.numel()}
        return said.nll_N().mean(), tokens_read(batch), extra

    return step_loss


def tokens_read(batch: Batch) -> int:
    """Tokens in a batch, padding left out."""
    return batch.tokens.numel() if batch.positions is None else int((batch.positions >= 0).sum())


def device_of(model: TrainableModel) -> torch.device:
    """Where the model's parameters are."""
    return next(model.parameters()).device
