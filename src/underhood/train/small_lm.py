"""A small language model from texts in a minute or two, for milestones that need one and are about something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.models.copying import begin_copying
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.text.bpe import BytePairTokenizer
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.optim import MuonAdamWSpec


def train_small(
    texts: Sequence[str],
    tokenizer: BytePairTokenizer,
    spec: DecoderSpec,
    *,
    steps: int,
    batch_size: int = 12,
    seed: int = 0,
    copying: bool = False,
    progress: Callable[[float], None] | None = None,
) -> Decoder:
    """A decoder trained on windows drawn anywhere from the texts, joined one after the other.

    Each text follows an end-of-text token. Unlike in `recipes.build`, windows reach across texts, which costs a little
    and needs no packing.

    Args:
        batch_size: windows of `spec.context_length` tokens per step.
        copying: begins with the copying circuit in its weights, as `recipes.build` does.
        progress: told the share that is done.
    """
    end = tokenizer.special["<|endoftext|>"]
    ids_N = torch.tensor([id for text in texts for id in (end, *tokenizer.encode(text))])
    model = spec.initialize(seed=seed)
    if copying:
        begin_copying(model, seed=seed, embed_std=0.02)
    width = spec.context_length + 1

    def batches(step: int) -> Batch:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        starts_B1 = torch.randint(len(ids_N) - width + 1, (batch_size, 1), generator=draw)
        row_BT = ids_N[starts_B1 + torch.arange(width)]
        if progress is not None:
            progress(step / steps)
        return Batch(row_BT[:, :-1], row_BT[:, 1:])

    optimizer = MuonAdamWSpec(matrix_lr=0.02, lr=0.04).build(model)
    fit(model, batches, next_token_loss_sum, optimizer, FitSpec(steps=steps), stage="pretrain", log=RunLog(None))
    return model.eval()
