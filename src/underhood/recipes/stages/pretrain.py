"""Pretraining: next-token prediction on the packed training documents makes the base model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.recipes.stages.registry import DataSize, Stage, StageInputs, StageSettings

if TYPE_CHECKING:
    from torch import Tensor

    from underhood.core.protocols import ModelSpec
    from underhood.data.batch import Batch
    from underhood.models.base import BuiltModel
    from underhood.train.loop import Objective

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


def pretrain_objective(inputs: StageInputs) -> Objective:
    """Next-token loss on packed documents; logs bits per byte too."""
    from underhood.data.pack import PackedBatches
    from underhood.train.loop import Objective
    from underhood.train.loss import next_token_loss_sum

    documents, plan = inputs.documents, inputs.plan
    bits_per_byte = documents.tokens / (documents.bytes * math.log(2))  # from nats per token

    def loss_fn(model: BuiltModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        loss, _ = next_token_loss_sum(model, batch)
        return loss, {"bits_per_byte": float(loss.detach()) * bits_per_byte}

    batches = PackedBatches(documents, batch_size=plan.batch_size, context_length=plan.context_length, seed=inputs.seed)
    return Objective(batches, loss_fn)


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
    share=0.38,
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
    objective=pretrain_objective,
)
