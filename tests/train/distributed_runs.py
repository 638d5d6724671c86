"""Small trainings on several processes; a script for `torchrun`.

``torchrun --nproc-per-node N distributed_runs.py FOLDER JOB…``: each job is ``MODE:NAME``: trains in FOLDER/NAME, going
on from a checkpoint if one is there. MODE is ddp or fsdp; ``dies`` is ddp whose second process kills itself after
step 5. The first process writes ``events.jsonl``.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from small_training import counting_batch, small_model

from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import Decoder
from underhood.train.distributed import process_group, rank_and_size, shard_model
from underhood.train.loop import FitSpec, fit
from underhood.train.loss import next_token_loss_sum
from underhood.train.optim import MuonAdamWSpec

STEPS = 6


def uneven_batch(number: int) -> Batch:
    """Rows with very different numbers of targets, so that processes and micro-batches have them too."""
    batch = counting_batch(number)
    targets = batch.targets.clone()
    for row in range(len(targets)):
        targets[row, : 2 * row + number % 2] = IGNORE
    return Batch(batch.tokens, targets)


def train_in(folder: Path, mode: str = "ddp") -> Decoder:
    model = small_model()
    rank, _ = rank_and_size()
    if mode == "fsdp":
        shard_model(model, model.blocks)

    def on_step(done: int) -> None:
        if mode == "dies" and rank == 1 and done == 5:
            os.kill(os.getpid(), signal.SIGKILL)

    log = RunLog(folder / "events.jsonl" if rank == 0 else None)
    options: dict[str, Any] = {"stage": "test", "log": log, "checkpoints": folder / "checkpoints", "on_step": on_step}
    optimizer = MuonAdamWSpec(matrix_lr=0.02, lr=5e-3).build(model)
    spec = FitSpec(steps=STEPS, accumulate=2, save_every=2, keep=9)
    fit(model, uneven_batch, next_token_loss_sum, optimizer, spec, **options)
    return model


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    try:
        with process_group():
            for job in sys.argv[2:]:
                mode, name = job.split(":")
                train_in(folder / name, mode)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
