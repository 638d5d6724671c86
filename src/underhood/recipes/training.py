"""The wrapper around `train.loop.fit` that every stage goes through: precision, optimiser, log, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.device import Device
from underhood.core.protocols import CountedModel
from underhood.core.runlog import RunLog
from underhood.nn.lora import LoRASpec
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.registry import Stage, StageInputs, get_stage
from underhood.train.distributed import DataParallel, on_first_rank, rank_and_size, shard_model
from underhood.train.hardware import Hardware
from underhood.train.loop import FitResult, FitSpec, Objective, fit
from underhood.train.optim import AdamWSpec, MuonAdamWSpec, OptimizerSpec
from underhood.train.plan import StagePlan, training_flops
from underhood.train.schedule import ScheduleSpec
from underhood.train.stopping import Interrupted


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """How a model is trained, whatever it learns.

    Attributes:
        name: of the stage in the log.
        optimizer, fit: the recipe.
        device: where the model is, and the format of its matrix products.
        log, checkpoints: where progress goes; an interrupted training goes on from the newest checkpoint.
        state: facts for every checkpoint.
        announced: further facts for the log's start event.
        flops_per_token, peak_flops: for the logged share of the machine's peak; 0 leaves it out.
        parallel: how several processes share the work.
    """

    name: str
    optimizer: OptimizerSpec
    fit: FitSpec
    device: Device
    log: RunLog
    checkpoints: Path
    state: Mapping[str, Any] | None = None
    announced: Mapping[str, Any] | None = None
    flops_per_token: float = 0.0
    peak_flops: float = 0.0
    parallel: DataParallel = "ddp"

    def train(self, model: nn.Module, objective: Objective) -> FitResult:
        """Trains `model` in place; with several processes its parameters are sharded if `parallel` says so.

        Raises:
            Interrupted: the user stopped it; a checkpoint has been written.
        """
        self.log.event(self.name, "start", steps=self.fit.steps, **(self.announced or {}))

        if self.parallel == "fsdp" and rank_and_size()[1] > 1:
            shard_model(model, getattr(model, "blocks", ()), self.device.kind)
        return fit(
            model,
            objective.batches,
            objective.loss_fn,
            self.optimizer.build(model),
            self.fit,
            stage=self.name,
            log=self.log,
            device=self.device,
            checkpoints=self.checkpoints,
            state=dict(self.state or {}),
            flops_per_token=self.flops_per_token,
            peak_flops=self.peak_flops,
        )


def train_stage(
    stage: Stage,
    inputs: StageInputs,
    spec: BuildSpec,
    hardware: Hardware,
    *,
    log: RunLog,
    checkpoints: Path,
    state: Mapping[str, Any],
    parallel: DataParallel = "ddp",
    lora: LoRASpec | None = None,
) -> FitResult:
    """Trains the model of `inputs` as its stage says.

    Args:
        lora: the adapters that the model has got: only they learn, and checkpoints hold nothing else.
        state: facts for every checkpoint.
        parallel: how several processes share the work (see `train.distributed`).

    Raises:
        Interrupted: the user stopped it; a checkpoint has been written.
    """
    plan, model, started = inputs.plan, inputs.model, time.perf_counter()
    if isinstance(model, CountedModel):
        return _count(stage, inputs, model, log, checkpoints, state)
    objective = stage.objective(inputs)
    if spec.compile and stage.full_rows:
        compiled, loss_fn = torch.compile(model, dynamic=False), objective.loss_fn
        objective = replace(objective, loss_fn=lambda _, batch: loss_fn(compiled, batch))
    left = max(plan.seconds - (time.perf_counter() - started), plan.seconds / 4)  # a reference's scores took time
    trainer = Trainer(
        name=stage.name,
        optimizer=stage_optimizer(spec, inputs, lora),
        fit=FitSpec(
            steps=plan.steps,
            seconds=None if plan.fixed else left,
            max_steps=plan.max_steps,
            schedule=ScheduleSpec(warmup=stage.warmup, decay=stage.decay),
            save_every=save_every(plan, spec.save_seconds),
            keep=2 if lora is None else 1,
            trained_only=lora is not None,
        ),
        device=inputs.device,
        log=log,
        checkpoints=checkpoints,
        state=state,
        announced={"seconds_planned": plan.seconds},
        flops_per_token=training_flops(model.spec),
        # A stage that scores few of its tokens would be flattered by the formula.
        peak_flops=hardware.flops if stage.full_rows else 0.0,
        parallel=parallel,
    )
    result = trainer.train(model, objective)
    log.event(stage.name, "end", seconds=result.seconds, tokens=result.tokens, loss=result.loss)
    if result.stopped:
        raise Interrupted(stage.name, result.last_step)
    return result


def _count(
    stage: Stage, inputs: StageInputs, model: CountedModel, log: RunLog, checkpoints: Path, state: Mapping[str, Any]
) -> FitResult:
    """Fits a model that counts, in one step over all documents."""
    started, documents = time.perf_counter(), inputs.documents
    log.event(stage.name, "start", steps=1, seconds_planned=inputs.plan.seconds)
    opening = documents.eot_id  # what opens every document, as in the evaluation windows
    model.fit(np.concatenate([[opening], documents.document(n)]) for n in range(len(documents)))
    facts = dict(state) | {"steps": 1, "tokens": documents.tokens}
    groups = {"model": module_tensors(cast(nn.Module, model))}
    on_first_rank(lambda: write_checkpoint(checkpoints, 1, groups, facts | {"step": 1}))
    result = FitResult(1, documents.tokens, time.perf_counter() - started, math.nan, 1)
    log.event(stage.name, "end", seconds=result.seconds, tokens=result.tokens)
    return result


def optimizer_spec(spec: BuildSpec, device: Device, scale: float = 1.0) -> MuonAdamWSpec:
    """The build's optimiser, its learning rates multiplied by `scale`; Muon works in the device's format."""
    return MuonAdamWSpec(
        matrix_lr=spec.matrix_lr * scale,
        lr=spec.lr * scale,
        unembed_lr=spec.unembed_lr * scale,
        newton_schulz_dtype="bfloat16" if device.dtype == "bfloat16" else "float32",
    )


def stage_optimizer(spec: BuildSpec, inputs: StageInputs, lora: LoRASpec | None) -> OptimizerSpec:
    """The stage's optimiser: the build's, or AdamW for a model that was trained before."""
    if spec.from_ is None:
        return optimizer_spec(spec, inputs.device, inputs.settings.lr_scale)
    rate = spec.tuning_lr or tuning_rate(inputs.model.spec.d_model, lora is not None)
    share = min(1.0, inputs.settings.lr_scale / get_stage("sft").settings().lr_scale)
    return AdamWSpec(lr=rate * share, betas=(0.9, 0.99), weight_decay=0.0)


def tuning_rate(d_model: int, lora: bool) -> float:
    """Learning rate of a few minutes' fine-tuning: twice what serves for hours.

    Those are 2e-5 (all weights) and 2e-4 (LoRA) at width 4096, where they are customary; all weights scale with 1/width
    (Yang et al. 2022), adapters with its root.
    """
    return 2 * (2e-4 * math.sqrt(4096 / d_model) if lora else 2e-5 * 4096 / d_model)


def save_every(plan: StagePlan, seconds: float) -> int:
    """Steps between checkpoints so that they are about `seconds` apart as planned."""
    return max(1, math.ceil(plan.steps * seconds / max(plan.seconds, 1e-9)))
