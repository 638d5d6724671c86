"""Pretraining: next-token prediction on the packed training documents makes the base model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from underhood.core.errors import UserError
from underhood.recipes.stages.registry import DataSize, Stage, StageInputs, StageSettings

if TYPE_CHECKING:
    from torch import Tensor

    from underhood.core.protocols import ModelSpec
    from underhood.data.batch import Batch
    from underhood.data.shards import TokenShards
    from underhood.models.base import BuiltModel
    from underhood.train.held_out import HeldOut
    from underhood.train.loop import LossFn, Objective

EMBED_STD = 0.1
"""Of fresh embeddings: with the large learning rates of a short run they must not start as near-equal vectors."""


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(StageSettings):
    """Settings of pretraining.

    Attributes:
        dropout: share of what each sublayer adds that is left out at random; by the amount of text if left out.
        copying: if off, it begins without two heads that copy from the context (see `models.copying`).
        recipe: muon (Muon and AdamW, for minutes) or gpt2: GPT-2's first weights, AdamW, warm-up and cosine, for hours.
        accumulate: micro-batches per optimiser step; goes with --steps, since the plan counts one.
    """

    dropout: float | None = None
    copying: bool = True
    recipe: Literal["muon", "gpt2"] = "muon"
    accumulate: int = 1

    def __post_init__(self):
        super().__post_init__()
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is a share from 0 up to 1, got {self.dropout}")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")


def initialize_model(spec: ModelSpec, settings: PretrainSettings, seed: int) -> BuiltModel:
    """A fresh model, a decoder by default with two heads that copy from the context."""
    from underhood.models.copying import begin_copying, can_copy
    from underhood.models.decoder import DecoderSpec
    from underhood.models.gpt2 import gpt2_initialized

    if settings.recipe == "gpt2":
        if not isinstance(spec, DecoderSpec):
            raise UserError("the recipe gpt2 is for decoders", fix="Give --architecture gpt2, or leave the recipe out")
        return gpt2_initialized(spec, seed=seed)
    model = spec.initialize(seed=seed, embed_std=EMBED_STD)
    if settings.copying and can_copy(spec):
        begin_copying(model, seed=seed, embed_std=EMBED_STD)
    return model


def pretrain_objective(inputs: StageInputs) -> Objective:
    """Next-token loss on packed documents; logs bits per byte too."""
    from underhood.data.pack import PackedBatches
    from underhood.train.loop import Objective

    documents, plan = inputs.documents, inputs.plan
    batches = PackedBatches(documents, batch_size=plan.batch_size, context_length=plan.context_length, seed=inputs.seed)
    return Objective(batches, _loss_of(documents))


def pretrain_held_out(inputs: StageInputs, tokens: int) -> HeldOut | None:
    """Rows of held-out text, cut as training rows are and spread evenly over all of it."""
    from underhood.data.pack import PackedBatches
    from underhood.train.held_out import HeldOut

    documents, plan = inputs.held_out, inputs.plan
    if documents is None or not documents.tokens:
        return None
    rows = PackedBatches(documents, batch_size=1, context_length=plan.context_length, seed=0, shuffle=False)
    count = max(1, min(rows.rows_per_epoch, round(tokens / plan.context_length)))
    batches = [rows(number * rows.rows_per_epoch // count) for number in range(count)]
    return HeldOut(batches=batches, loss_fn=_loss_of(documents))


def _loss_of(documents: TokenShards) -> LossFn:
    """The summed loss of next tokens; bits per byte by the tokens that these documents have per byte."""
    from underhood.train.loss import next_token_loss_sum

    bits_per_byte = documents.tokens / (documents.bytes * math.log(2))  # from nats per token

    def loss_fn(model: BuiltModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        loss, _ = next_token_loss_sum(model, batch)
        return loss, {"bits_per_byte": float(loss.detach()) * bits_per_byte}

    return loss_fn


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
    keep_best=True,
    log_scale=True,
    settings=PretrainSettings,
    initialize=initialize_model,
    data_size=lambda data, tokenizer: DataSize(),
    objective=pretrain_objective,
    held_out=pretrain_held_out,
)
