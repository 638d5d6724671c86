"""A training run of a few steps: a tiny decoder that learns to count, every batch a function of its step."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from underhood.core.checkpoint import module_tensors
from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.train.loop import FitResult, FitSpec, LossFn, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.optim import MuonAdamWSpec

VOCAB = 24


def small_model(seed: int = 0) -> Decoder:
    spec = qwen3_shaped(vocab_size=VOCAB, context_length=8, d_model=16, layers=1, heads=2, d_ff=32)
    return spec.initialize(seed=seed)


def counting_batch(step: int) -> Batch:
    """Rows that count upwards from random numbers."""
    start_B1 = torch.randint(VOCAB, (4, 1), generator=torch.Generator().manual_seed(step))
    row_BT = (start_B1 + torch.arange(9)) % VOCAB
    return Batch(row_BT[:, :-1], row_BT[:, 1:])


def train(
    folder: Path | None,
    spec: FitSpec,
    *,
    log: RunLog | None = None,
    batches: Callable[[int], Any] = counting_batch,
    loss_fn: LossFn[Any] = next_token_loss_sum,
    optimizer: Callable[[Decoder], Optimizer] | None = None,
    **options: Any,
) -> tuple[Decoder, FitResult]:
    model = small_model()
    made = (optimizer or MuonAdamWSpec(matrix_lr=0.02, lr=5e-3).build)(model)
    log = log or RunLog(None)
    result = fit(model, batches, loss_fn, made, spec, stage="test", log=log, checkpoints=folder, **options)
    return model, result


def digest(model: Decoder) -> str:
    """SHA-256 of all weights, bit for bit."""
    sha = hashlib.sha256()
    for name, tensor in sorted(module_tensors(model).items()):
        sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()
