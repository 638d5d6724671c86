"""Training state: written as a checkpoint, read back by any number of processes.

The folder is the same however many processes wrote it (`train.sharded_checkpoint`), so one, two or three can go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from underhood.core.checkpoint import (
    load_module,
    module_tensors,
    newest,
    read_checkpoint,
    write_checkpoint,
)
from underhood.core.errors import UserError
from underhood.train.distributed import rank_and_size
from underhood.train.held_out import BestWeights
from underhood.train.optim import load_optimizer_tensors, optimizer_tensors


@dataclass
class TrainingState:
    """Progress of a stage: what a checkpoint holds beside weights and optimiser state.

    Attributes:
        step: updates made.
        tokens: tokens read.
        seconds: time spent training, in all processes that were started one after another.
        smoothed: exponential average of the loss in nats; NaN before the first update.
        totals: decisions about the number of steps (see `train.step_budget`).
        best: the held-out loss so far, and the weights that it was lowest with (see `train.held_out`).
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    smoothed: float = math.nan
    totals: list[tuple[int, int]] = field(default_factory=list)
    best: BestWeights = field(default_factory=BestWeights)


class Kept(Protocol):
    """How checkpoints are kept (`train.loop.FitSpec`)."""

    @property
    def keep(self) -> int: ...

    @property
    def trained_only(self) -> bool: ...


def save_training_state(
    model: nn.Module, optimizer: Optimizer, folder: Path, now: TrainingState, facts: Mapping[str, Any], spec: Kept
) -> Path:
    """Writes the checkpoint ``folder/step-…``; all processes call it together.

    Raises:
        UserError: the disk is full or the folder can't be written; earlier checkpoints are untouched.
    """
    saved = {"step": now.step, "tokens": now.tokens, "seconds": now.seconds, "totals": now.totals}
    saved["smoothed"] = None if math.isnan(now.smoothed) else now.smoothed
    saved["held_out"] = now.best.history
    groups = {
        "model": saved_tensors(model, spec.trained_only),
        "optimizer": optimizer_tensors(model, optimizer),
    }
    if now.best.tensors is not None and now.best.step < now.step:
        groups["best"] = dict(now.best.tensors)
    if rank_and_size()[1] == 1:
        return write_checkpoint(folder, now.step, groups, dict(facts) | saved, keep=spec.keep)
    from underhood.train.sharded_checkpoint import write_sharded_checkpoint  # slow to import

    return write_sharded_checkpoint(folder, now.step, groups, dict(facts) | saved, keep=spec.keep)


def load_training_state(
    model: nn.Module, optimizer: Optimizer, folder: Path | None, trained_only: bool = False
) -> TrainingState:
    """Loads the newest checkpoint of `folder` into model and optimiser, if there is one.

    Raises:
        UserError: it is damaged, or belongs to another model or optimiser.
    """
    path = newest(folder) if folder is not None else None
    if path is None:
        return TrainingState()
    checkpoint = read_checkpoint(path)
    if rank_and_size()[1] > 1:
        from underhood.train.sharded_checkpoint import read_sharded_checkpoint  # slow to import

        read_sharded_checkpoint(checkpoint, model, optimizer, saved_tensors(model, trained_only))
    else:
        tensors = checkpoint.tensors("model")
        with torch.no_grad():
            if trained_only:  # the frozen rest is whatever the model holds
                if odd := tensors.keys() ^ saved_tensors(model, True).keys():
                    raise UserError(
                        f"{path} does not belong to what is trained here", got=f"difference at {min(odd)!r}"
                    )
                tensors = module_tensors(model) | tensors
            load_module(model, tensors, path)
        load_optimizer_tensors(model, optimizer, checkpoint.tensors("optimizer"))
    state = checkpoint.state
    smoothed = state.get("smoothed")
    history = [(step, loss) for step, loss in state.get("held_out", [])]
    best = checkpoint.tensors("best") if (path / "best.safetensors").exists() else None
    return TrainingState(
        step=checkpoint.step,
        tokens=int(state.get("tokens", 0)),
        seconds=float(state.get("seconds", 0.0)),
        smoothed=math.nan if smoothed is None else float(smoothed),
        totals=[(step, total) for step, total in state.get("totals", [])],
        best=BestWeights(history, best),
    )


def saved_tensors(model: nn.Module, trained_only: bool) -> dict[str, Tensor]:
    """What a checkpoint holds of the model: all of it, or the parameters that learn."""
    tensors = module_tensors(model)
    if not trained_only:
        return tensors
    return {name: tensors[name] for name, parameter in model.named_parameters() if parameter.requires_grad}
