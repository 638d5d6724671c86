"""Pretraining: next-token prediction on the packed training documents makes the base model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.registry import DataSize, Stage, StageInputs, StageSettings

if TYPE_CHECKING:
    from torch import Tensor

    from underhood.core.protocols import ModelSpec
    from underhood.models.base import BuiltModel
    from underhood.train.loop import LossFn

EMBED_STD = 0.1
"""Of fresh embeddings: with the large learning rates of a short run they must not start as near-equal vectors."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(StageSettings):
    """Settings of pretraining.

    Attributes:
        copying: if off, it begins without two heads that copy from the context (see `models.copying`).
    """

    copying: bool = True


def initialize_model(spec: ModelSpec, settings: PretrainSettings, seed: int) -> BuiltModel:
    """A fresh model, a decoder by default with two heads that copy from the context."""
    from underhood.models.copying import begin_copying, can_copy

    model = spec.initialize(seed=seed, embed_std=EMBED_STD)
    if settings.copying and can_copy(spec):
        begin_copying(model, seed=seed, embed_std=EMBED_STD)
    return model


def pretrain_loss(inputs: StageInputs) -> LossFn:
    """Mean next-token loss of a batch of packed documents; logs bits per byte and the epoch too."""
    from underhood.data.pack import PackedBatches
    from underhood.train.loss import next_token_loss

    documents, plan, device = inputs.documents, inputs.plan, inputs.device.torch
    bits_per_byte = documents.tokens / (documents.bytes * math.log(2))  # from nats per token
    batches = PackedBatches(documents, batch_size=plan.batch_size, context_length=plan.context_length, seed=inputs.seed)

    def step_loss(step: int) -> tuple[Tensor, int, dict[str, float]]:
        batch = batches(step).to(device)
        loss = next_token_loss(inputs.model, batch)
        figures = {"epoch": batches.epoch_of(step + 1), "bits_per_byte": float(loss.detach()) * bits_per_byte}
        return loss, batch.tokens.numel(), figures

    return step_loss


STAGE = Stage(
    name="pretrain",
    model="base",
    starts_from=None,
    title="Pretraining",
    short_title="Pretrain",
    model_title="Base",
    purpose="learns the language",
    command="Pretrains the base model of a run.",
    help="""Pretrains the base model of a run: next-token prediction on its text.

    If there is no run in RUN yet, one is made: text, tokenizer and plan first,
    as underhood build does. An interrupted pretraining goes on.
    """,
    model_description="pretrained to continue text",
    data_name="documents",
    colour=("#62666d", "#a4a8ae"),
    terminal_colour="grey62",
    share=0.62,
    warmup=0.02,
    decay=0.6,
    full_rows=True,
    chats=False,
    improves=("bits per byte",),
    curves=("bits_per_byte", "loss"),
    first_curves=1,
    log_scale=True,
    settings=PretrainSettings,
    initialize=initialize_model,
    data_size=lambda data, tokenizer: DataSize(),
    loss=pretrain_loss,
)
