"""Prompts with answers as padded rows whose targets are the answers, and supervised training on them."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch

from underhood.align.sft import SFTLoss
from underhood.core.runlog import RunLog
from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import Decoder
from underhood.train.loop import FitSpec, fit
from underhood.train.optim import OptimizerSpec


def answer_rows(rows: Sequence[tuple[Sequence[int], int]]) -> Batch:
    """Padded rows of ids; targets begin with the token that the given position holds."""
    width = max(len(ids) for ids, _ in rows) - 1
    tokens_BT, targets_BT = np.zeros((len(rows), width), np.int64), np.full((len(rows), width), IGNORE)
    for b, (ids, first) in enumerate(rows):
        tokens_BT[b, : len(ids) - 1] = ids[:-1]
        targets_BT[b, first - 1 : len(ids) - 1] = ids[first:]
    return Batch(torch.from_numpy(tokens_BT), torch.from_numpy(targets_BT))


def trained(model: Decoder, batches: Callable[[int], Batch], steps: int, optimizer: OptimizerSpec) -> Decoder:
    """A copy of a model after supervised steps."""
    model, log = copy.deepcopy(model).train(), RunLog(None)
    fit(model, batches, SFTLoss(), optimizer.build(model), FitSpec(steps=steps), stage="sft", log=log)
    return model.eval()


def random_rows(rows: Sequence[tuple[Sequence[int], int]], size: int, seed: int) -> Callable[[int], Batch]:
    """Batches by step: each draws its rows anew."""
    return lambda step: answer_rows(
        [rows[n] for n in np.random.default_rng([seed, step]).integers(len(rows), size=size)]
    )
