"""Loss of an encoder–decoder on pairs: teacher forcing with label smoothing."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from underhood.data.batch import IGNORE
from underhood.data.translation_batches import TranslationBatch
from underhood.models.encoder_decoder import EncoderDecoder
from underhood.train.cross_entropy import LabelSmoothing, cross_entropy


def translation_loss(
    smoothing: LabelSmoothing | None = None,
) -> Callable[[EncoderDecoder, TranslationBatch], tuple[Tensor, dict[str, float]]]:
    """`LossFn`: the summed cross-entropy of the target tokens in nats; scores of padding are never worked out."""

    def loss_fn(model: EncoderDecoder, batch: TranslationBatch) -> tuple[Tensor, dict[str, float]]:
        memory = model.encode(batch.source, positions=batch.positions)
        kept_BT = batch.targets != IGNORE
        states_BTD = model.target_states(batch.tokens, memory)
        logits_NV = model.unembed(states_BTD[kept_BT])
        return cross_entropy(logits_NV, batch.targets[kept_BT], reduction="sum", smoothing=smoothing), {}

    return loss_fn
