"""A small language model from texts in a minute or two, for milestones that need one and are about something else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from underhood.core.protocols import ModelSpec, Tokenizer
from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.models.copying import begin_copying
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.optim import MuonAdamWSpec, OptimizerSpec

QUICK = MuonAdamWSpec(matrix_lr=0.02, lr=0.04)


def train_small(
    texts: Sequence[str],
    tokenizer: Tokenizer,
    spec: ModelSpec,
    *,
    steps: int,
    batch_size: int = 12,
    seed: int = 0,
    copying: bool = False,
    optimizer: OptimizerSpec | None = None,
    progress: Callable[[float], None] | None = None,
) -> Any:
    """A language model trained on windows drawn anywhere from the texts, joined one after the other.

    Each text follows an end-of-text token. Unlike in `recipes.build`, windows reach across texts, which costs a little
    and needs no packing.

    Args:
        optimizer: Muon at high rates, if left out.
        batch_size: windows of `spec.context_length` tokens per step.
        copying: a decoder begins with the copying circuit in its weights, as `recipes.build` does.
        progress: told the share that is done.
    """
    end = tokenizer.special["<|endoftext|>"]
    ids_N = torch.tensor([id for text in texts for id in (end, *tokenizer.encode(text))])
    model = spec.initialize(seed=seed)
    if copying:
        begin_copying(model, seed=seed, embed_std=0.02)
    width = (spec.context_length or 128) + 1

    def batches(step: int) -> Batch:
        draw = torch.Generator().manual_seed(seed * 1_000_003 + step)
        starts_B1 = torch.randint(len(ids_N) - width + 1, (batch_size, 1), generator=draw)
        row_BT = ids_N[starts_B1 + torch.arange(width)]
        if progress is not None:
            progress(step / steps)
        return Batch(row_BT[:, :-1], row_BT[:, 1:])

    fit(
        model,
        batches,
        next_token_loss_sum,
        (optimizer or QUICK).build(model),
        FitSpec(steps=steps),
        stage="pretrain",
        log=RunLog(None),
    )
    return model.eval()
