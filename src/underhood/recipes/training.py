"""The three training stages of a build. Each starts from what the stage before left in the folder."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import Tensor

from underhood.align.dpo import DPOSpec, dpo_step, score_all_pairs
from underhood.align.pairs import Marked, PairBatches
from underhood.align.sft import sft_step
from underhood.core.checkpoint import load_module, newest, read_checkpoint
from underhood.core.config import from_json, to_json
from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.data.pack import PackedBatches
from underhood.data.render import ChatBatches
from underhood.models.copying import begin_copying, can_copy
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.recipes.corpus import open_shards, tokenizer_digest
from underhood.recipes.run import STAGE_OF, Run
from underhood.recipes.spec import BuildSpec
from underhood.text.chat import Rendered
from underhood.train.hardware import Hardware
from underhood.train.loop import FitResult, FitSpec, Interrupted, LossFn, fit
from underhood.train.loss import next_token_loss
from underhood.train.optim import MuonAdamWSpec
from underhood.train.plan import Plan, StagePlan, training_flops
from underhood.train.schedule import ScheduleSpec

EMBED_STD = 0.1
"""Of fresh embeddings: with the large rates of a short run they should not begin as near-equal vectors."""


def optimizer_spec(spec: BuildSpec, device: Device, scale: float = 1.0) -> MuonAdamWSpec:
    """The build's optimiser, its learning rates multiplied by `scale`; Muon works in the device's format."""
    return MuonAdamWSpec(
        matrix_lr=spec.matrix_lr * scale,
        lr=spec.lr * scale,
        unembed_lr=spec.unembed_lr * scale,
        newton_schulz_dtype=_muon_format(device),
    )


def _muon_format(device: Device) -> Literal["float32", "bfloat16"]:
    return "bfloat16" if device.dtype == "bfloat16" else "float32"


def pretrain(run: Run, plan: Plan, hardware: Hardware) -> FitResult:
    """Trains a fresh model on the packed training documents."""
    spec = run.spec
    model = plan.model.initialize(seed=spec.seed, embed_std=EMBED_STD)
    if spec.copying and can_copy(plan.model):
        begin_copying(model, seed=spec.seed, embed_std=EMBED_STD)
    model.to(hardware.device.torch)
    trained = compiled(model, spec)
    shards = open_shards(run, "train")
    per_byte = shards.tokens / (shards.bytes * math.log(2))  # nats per token → bits per byte
    batches = PackedBatches(shards, rows=plan.pretrain.rows, context=plan.pretrain.context, seed=spec.seed)

    def step(number: int) -> tuple[Tensor, int, dict[str, float]]:
        batch = batches(number).to(hardware.device.torch)
        loss = next_token_loss(trained, batch)
        facts = {"epoch": batches.epoch_of(number + 1), "bits_per_byte": float(loss.detach()) * per_byte}
        return loss, batch.tokens.numel(), facts

    schedule = ScheduleSpec(warmup=0.02, decay=0.6)
    return _fit(run, plan, hardware, "base", model, step, plan.pretrain, schedule, scale=1.0)


def finetune(
    run: Run, plan: Plan, hardware: Hardware, examples: Sequence[Rendered], start: Path | None = None
) -> FitResult:
    """Supervised fine-tuning of the base model, or of the checkpoint `start`, on rendered conversations."""
    assert plan.sft is not None
    model = load_model(run, "base", start).to(hardware.device.torch)
    batches = ChatBatches(examples, rows=plan.sft.rows, context=plan.sft.context, seed=run.spec.seed)
    schedule = ScheduleSpec(warmup=0.05, decay=0.9)
    step = sft_step(model, batches, unlikelihood=run.spec.unlikelihood)
    return _fit(run, plan, hardware, "sft", model, step, plan.sft, schedule, scale=run.spec.sft_lr_scale)


def align(
    run: Run, plan: Plan, hardware: Hardware, pairs: Sequence[tuple[Marked, Marked]], start: Path | None = None
) -> FitResult:
    """Preference alignment by DPO of the fine-tuned model, or of the checkpoint `start`; it is the reference too."""
    assert plan.dpo is not None
    model = load_model(run, "sft", start).to(hardware.device.torch)
    used = pairs_of_plan(pairs, plan.dpo, run.spec.seed)
    batches = PairBatches(used, rows=plan.dpo.rows, seed=run.spec.seed, context=plan.model.context)
    with hardware.device.autocast():
        reference = score_all_pairs(model, batches)
    step = dpo_step(model, batches, reference, DPOSpec(beta=run.spec.beta, sft_weight=0.2))
    schedule = ScheduleSpec(warmup=0.1, decay=0.9)
    return _fit(run, plan, hardware, "dpo", model, step, plan.dpo, schedule, scale=run.spec.dpo_lr_scale)


def pairs_of_plan(pairs: Sequence[tuple[Marked, Marked]], plan: StagePlan, seed: int) -> list[tuple[Marked, Marked]]:
    """As many pairs, drawn by the seed, as the planned steps will read: the reference scores no pair in vain."""
    count = min(len(pairs), plan.steps * plan.rows)
    return [pairs[i] for i in sorted(random.Random(seed).sample(range(len(pairs)), count))]


def load_model(run: Run, stage: str, path: Path | None = None) -> Decoder:
    """The model that a stage left behind (or the checkpoint `path`), on the CPU, in evaluation mode.

    Raises:
        UserError: the stage has left no model in this run, or `path` belongs to another tokenizer.
    """
    path = path or newest(run.checkpoints(stage))
    if path is None:
        have = [name for name in STAGE_OF if newest(run.checkpoints(name))]
        raise UserError(
            f"{run.path} has no {stage} model yet",
            got=f"models: {', '.join(have)}" if have else "no model at all",
            fix=f"Make it with underhood {STAGE_OF[stage]} {run.path}",
        )
    saved = read_checkpoint(path)
    if saved.state.get("tokenizer") not in (None, tokenizer_digest(run)):
        raise UserError(f"{path} was trained with another tokenizer than the one in {run.path}")
    model = from_json(DecoderSpec, saved.state["spec"], where=str(path / "state.json")).build()
    load_module(model, saved.tensors("model"), path)
    return model.eval()


def compiled(model: Decoder, spec: BuildSpec) -> Decoder:
    """The model, compiled if asked for; the parameters are the same objects either way."""
    if not spec.compile:
        return model
    return cast(Decoder, torch.compile(model, dynamic=False))


def _fit(
    run: Run,
    plan: Plan,
    hardware: Hardware,
    stage: str,
    model: Decoder,
    step: LossFn,
    planned: StagePlan,
    schedule: ScheduleSpec,
    *,
    scale: float,
) -> FitResult:
    name = STAGE_OF[stage]
    spec = FitSpec(steps=planned.steps, schedule=schedule, save_every=save_every(planned, run.spec.save_seconds))
    run.log.event(name, "start", steps=planned.steps, seconds_planned=planned.seconds)
    facts: dict[str, Any] = {"spec": to_json(plan.model), "model": stage, "tokenizer": tokenizer_digest(run)}

    def in_precision(number: int) -> tuple[Tensor, int, dict[str, float]]:
        with hardware.device.autocast():
            return step(number)

    result = fit(
        model,
        in_precision,
        optimizer_spec(run.spec, hardware.device, scale).build(model),
        spec,
        stage=name,
        log=run.log,
        checkpoints=run.checkpoints(stage),
        state=facts,
        flops_per_token=training_flops(plan.model),
        # The later stages score few of their tokens, so the formula would flatter them.
        peak_flops=hardware.flops if stage == "base" else 0.0,
    )
    run.log.event(name, "end", seconds=result.seconds, tokens=result.tokens, loss=result.loss)
    if result.stopped:
        raise Interrupted(name, planned.steps)
    return result


def save_every(planned: StagePlan, seconds: float) -> int:
    """Steps between checkpoints so that they are about `seconds` apart as planned."""
    return max(1, math.ceil(planned.steps * seconds / max(planned.seconds, 1e-9)))
