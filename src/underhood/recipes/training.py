"""The wrapper around `train.loop.fit` that every stage goes through: precision, optimiser, log, checkpoints."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from underhood.core.checkpoint import module_tensors, write_checkpoint
from underhood.core.device import Device
from underhood.core.protocols import CountedModel, PartlyCountedModel
from underhood.core.runlog import RunLog
from underhood.data.render import ChatBatches
from underhood.data.shards import TokenShards
from underhood.nn.lora import LoRASpec
from underhood.recipes.film import Film
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.registry import Stage, StageInputs, StageOutcome, StageTraining, get_stage
from underhood.train.distributed import DataParallel, on_first_rank, rank_and_size, shard_model
from underhood.train.dropout import ResidualDropout
from underhood.train.hardware import Hardware
from underhood.train.held_out import HeldOut
from underhood.train.loop import FitResult, FitSpec, Objective, fit
from underhood.train.nanogpt import GPT2_124M
from underhood.train.optim import AdamWSpec, MuonAdamWSpec, OptimizerSpec
from underhood.train.plan import StagePlan, training_flops
from underhood.train.schedule import ScheduleSpec
from underhood.train.stopping import Interrupted

HELD_OUT_COST = 0.008
"""Share of a stage's time for its held-out loss; a forward pass takes a third of a training step."""

LEAST_HELD_OUT, MOST_HELD_OUT = 512, 32_768
"""Tokens of held-out data in one measurement."""

TUNING_SHARE = 0.25
"""Learning rate of reinforcement learning on a given model, as a share of fine-tuning's."""

FEWEST_EVALUATIONS = 4
"""Measurements of a stage that reads so little that each of them is dear: a large model that is tuned for minutes."""


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

    def train(
        self, model: nn.Module, objective: Objective, held_out: HeldOut | None = None, film: Film | None = None
    ) -> FitResult:
        """Trains `model` in place; with several processes its parameters are sharded if `parallel` says so.

        Args:
            held_out: measured now and then.
            film: watches the training.

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
            held_out=held_out,
            watch=film,
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
    film: Film | None = None,
) -> StageOutcome:
    """Trains the model of `inputs` as its stage says.

    Args:
        film: watches the training.
        lora: the adapters that the model has got: only they learn, and checkpoints hold nothing else.
        state: facts for every checkpoint.
        parallel: how several processes share the work (see `train.distributed`).

    Raises:
        Interrupted: the user stopped it; a checkpoint has been written.
    """
    plan, model, started = inputs.plan, inputs.model, time.perf_counter()
    if isinstance(model, CountedModel):
        return StageOutcome(fit=_count(stage, inputs, model, log, checkpoints, state))
    if isinstance(model, PartlyCountedModel) and stage.starts_from is None:
        model.count_documents(_opened_documents(inputs.documents))
    if stage.train is not None:
        return _own_loop(stage, inputs, spec, log, checkpoints, state, lora)
    assert stage.objective is not None
    objective = stage.objective(inputs)
    if isinstance(objective.batches, ChatBatches) and objective.batches.dropped:
        text = f"conversations left out, longer than {plan.context_length:,} tokens: {objective.batches.dropped:,}"
        log.event(stage.name, "note", text=text)
    rate = getattr(inputs.settings, "dropout", None)
    dropout = ResidualDropout(plan.dropout if rate is None else rate, inputs.seed)
    objective = replace(objective, batches=dropout.batches(objective.batches))
    if spec.compile and stage.full_rows:
        compiled, loss_fn = torch.compile(model, dynamic=False), objective.loss_fn
        objective = replace(objective, loss_fn=lambda _, batch: loss_fn(compiled, batch))
    seconds = plan.allowed or plan.seconds
    left = max(seconds - (time.perf_counter() - started), seconds / 4)  # a reference's scores took time
    trainer = Trainer(
        name=stage.name,
        optimizer=stage_optimizer(spec, inputs, lora),
        fit=FitSpec(
            steps=plan.steps,
            seconds=None if plan.fixed else left,
            max_steps=plan.max_steps,
            schedule=stage_schedule(stage, inputs),
            accumulate=getattr(inputs.settings, "accumulate", 1),
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
    held_out = held_out_sample(stage, inputs, keep_best=spec.from_ is None)
    with dropout.applied(model):
        result = trainer.train(model, objective, held_out, film)
    log.event(stage.name, "end", seconds=result.seconds, tokens=result.tokens, loss=result.loss)
    if result.stopped:
        raise Interrupted(stage.name, result.last_step)
    return StageOutcome(fit=result)


def _own_loop(
    stage: Stage,
    inputs: StageInputs,
    spec: BuildSpec,
    log: RunLog,
    checkpoints: Path,
    state: Mapping[str, Any],
    lora: LoRASpec | None,
) -> StageOutcome:
    """Trains by the loop that the stage brings."""
    assert stage.train is not None
    fresh = spec.lr * inputs.settings.lr_scale
    training = StageTraining(
        lr=fresh if spec.from_ is None else TUNING_SHARE * tuning_rate(inputs.model.spec.d_model, lora is not None),
        seconds=None if inputs.plan.fixed else inputs.plan.seconds,
        trained_only=lora is not None,
        log=log,
        checkpoints=checkpoints,
        state=state,
    )
    log.event(stage.name, "start", steps=inputs.plan.steps, seconds_planned=inputs.plan.seconds)
    outcome = stage.train(inputs, training)
    # The loss of policy gradients is near zero by construction and says nothing.
    loss = outcome.fit.loss if stage.scores else None
    log.event(stage.name, "end", seconds=outcome.fit.seconds, tokens=outcome.fit.tokens, loss=loss)
    return outcome


def held_out_sample(stage: Stage, inputs: StageInputs, *, keep_best: bool) -> HeldOut | None:
    """What the stage's held-out loss is measured on: as much as `HELD_OUT_COST` allows.

    Args:
        keep_best: keep the best weights, if the stage's held-out loss is what the stage is for.
    """
    affordable = int(3 * HELD_OUT_COST * inputs.plan.tokens)
    evaluations = HeldOut.evaluations  # the best weights are found only where it is measured
    if not keep_best:
        evaluations = max(FEWEST_EVALUATIONS, min(evaluations, affordable // LEAST_HELD_OUT - 1))
    tokens = affordable // (evaluations + 1)
    held_out = stage.held_out(inputs, max(LEAST_HELD_OUT, min(tokens, MOST_HELD_OUT)))
    if held_out is None:
        return None
    return replace(
        held_out, evaluations=evaluations, keep_best=keep_best and stage.keep_best and rank_and_size()[1] == 1
    )


def _count(
    stage: Stage, inputs: StageInputs, model: CountedModel, log: RunLog, checkpoints: Path, state: Mapping[str, Any]
) -> FitResult:
    """Fits a model that counts, in one step over all documents."""
    started, documents = time.perf_counter(), inputs.documents
    log.event(stage.name, "start", steps=1, seconds_planned=inputs.plan.seconds)
    model.fit(_opened_documents(documents))
    facts = dict(state) | {"steps": 1, "tokens": documents.tokens}
    groups = {"model": module_tensors(cast(nn.Module, model))}
    on_first_rank(lambda: write_checkpoint(checkpoints, 1, groups, facts | {"step": 1}))
    result = FitResult(1, documents.tokens, time.perf_counter() - started, math.nan, 1)
    log.event(stage.name, "end", seconds=result.seconds, tokens=result.tokens)
    return result


def _opened_documents(documents: TokenShards) -> Iterator[np.ndarray]:
    """Each document after the token that opens it, as in the evaluation windows."""
    return (np.concatenate([[documents.eot_id], documents.document(n)]) for n in range(len(documents)))


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
    if _follows_gpt2(inputs):
        return replace(GPT2_124M.optimizer, lr=GPT2_124M.lr * inputs.settings.lr_scale)
    if spec.from_ is None:
        return optimizer_spec(spec, inputs.device, inputs.settings.lr_scale)
    rate = spec.tuning_lr or tuning_rate(inputs.model.spec.d_model, lora is not None)
    share = min(1.0, inputs.settings.lr_scale / get_stage("sft").settings().lr_scale)
    return AdamWSpec(lr=rate * share, betas=(0.9, 0.99), weight_decay=0.0)


def stage_schedule(stage: Stage, inputs: StageInputs) -> ScheduleSpec:
    """The stage's schedule, or that of GPT-2's recipe: a cosine down to a tenth right after the warm-up."""
    if _follows_gpt2(inputs):
        return ScheduleSpec(warmup=stage.warmup, decay=1 - stage.warmup, floor=0.1, shape="cosine")
    return ScheduleSpec(warmup=stage.warmup, decay=stage.decay)


def _follows_gpt2(inputs: StageInputs) -> bool:
    return getattr(inputs.settings, "recipe", None) == "gpt2"


def tuning_rate(d_model: int, lora: bool) -> float:
    """Learning rate of a few minutes' fine-tuning: twice what serves for hours.

    Those are 2e-5 (all weights) and 2e-4 (LoRA) at width 4096, where they are customary; all weights scale with 1/width
    (Yang et al. 2022), adapters with its root.
    """
    return 2 * (2e-4 * math.sqrt(4096 / d_model) if lora else 2e-5 * 4096 / d_model)


def save_every(plan: StagePlan, seconds: float) -> int:
    """Steps between checkpoints so that they are about `seconds` apart as planned."""
    return max(1, math.ceil(plan.steps * seconds / max(plan.seconds, 1e-9)))
