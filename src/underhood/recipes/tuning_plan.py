"""Plan of a build that starts from a model: the model is given, so only the stages' steps are to be decided.

A large model is also slow to measure: the evaluation gets a share of the time and is cut to what fits into it.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from underhood.align.sft import SFTLoss
from underhood.core.device import Device
from underhood.core.protocols import Tokenizer
from underhood.data.batch import IGNORE, Batch
from underhood.models.base import BuiltModel, parameter_count
from underhood.recipes.evaluation import EvalSize
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stage_models import lora_of
from underhood.recipes.stage_requests import check_used_stages, stage_request
from underhood.recipes.stages.registry import DataSize, Stage, all_stages, get_stage
from underhood.recipes.training_data import StageData, chosen, render_examples, render_pairs
from underhood.text.chat import Template
from underhood.train.hardware import Hardware
from underhood.train.plan import SUSTAINED, Plan, StagePlan, StageRequest, plan_stage

STEP_TOKENS = 256
"""Tokens of a step where nothing else is asked for: three or four questions with their passages. In a few minutes many
small steps teach more than a few large ones."""

EVALUATION_SHARE = 0.2
"""Share of the time for measuring the model before and after training."""

READING = 2.0
"""How many times faster a model reads than it trains: a training step goes through it once forwards and, for frozen
weights, once backwards."""

SAMPLED = 64
"""Conversations that are looked at for how long they are."""

TARGET_SHARE = 4
"""One token in so many is an answer's, and is scored."""


def plan_tuning(
    spec: BuildSpec,
    model: BuiltModel,
    data: StageData,
    tokenizer: Tokenizer,
    template: Template,
    hardware: Hardware,
    *,
    seconds: float,
) -> Plan:
    """The stages of a build from `model`, by the speed of a training step as it is measured here.

    Args:
        model: is changed (it gets adapters): read it again to train it.
        seconds: time left for the job.
    """
    started = time.perf_counter()
    parameters = parameter_count(model)
    sample = render_examples(tokenizer, chosen(data.examples, SAMPLED, 0), template)
    longest = max((len(each.ids) for each in sample), default=0)
    context = spec.context_length or min(max(STEP_TOKENS, longest * 5 // 4), model.context_length or 1 << 20)
    rows = spec.batch_size or 1
    speed = SUSTAINED * tuning_speed(spec, model, rows, context, hardware.device)
    training = seconds - (time.perf_counter() - started) - EVALUATION_SHARE * 60 * spec.minutes
    training = max(training, 0.25 * seconds, 1.0)
    requests = tuning_requests(spec, data, tokenizer, template)
    total = sum(request.share for request in requests)
    shape = {"batch_size": rows, "context_length": context, "speed": speed}
    stages = tuple(plan_stage(each, training * each.share / total, **shape) for each in requests)
    learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return Plan(
        model=model.spec,
        stages=stages,
        tokens_per_second=speed,
        reason=_reason(training, learning, parameters, speed, stages),
    )


def tuning_requests(spec: BuildSpec, data: StageData, tokenizer: Tokenizer, template: Template) -> list[StageRequest]:
    """What the stages ask for: fine-tuning, and others only where they are wanted."""
    requests = []
    for stage in filter(spec.wants, all_stages()):
        steps = spec.stage_settings(stage).steps
        tunes = stage.name == "sft" or stage.optional or steps
        if not (tunes if stage.initialize is None else spec.continue_pretraining):
            continue
        size = _size(stage, data, tokenizer, template)
        if size.tokens:
            requests.append(stage_request(spec, stage, size))
    check_used_stages(spec, requests)
    return requests


def _size(stage: Stage, data: StageData, tokenizer: Tokenizer, template: Template) -> DataSize:
    """About how many tokens there are for a stage, and those of a row if each example has a row of its own."""
    if stage.name == "sft":
        sample = render_examples(tokenizer, chosen(data.examples, SAMPLED, 0), template)
        return DataSize(tokens=len(data.examples) * sum(len(each.ids) for each in sample) / max(1, len(sample)))
    if stage.takes_feedback or stage.scores:
        sample = render_pairs(tokenizer, chosen(data.pairs, SAMPLED, 0), context_length=1 << 20, template=template)
        average = sum(len(ids) for pair in sample for ids, _ in pair) // max(1, len(sample))
        return DataSize(tokens=len(data.pairs) * average, row_tokens=average)
    return stage.data_size(data, tokenizer)


def tuning_speed(spec: BuildSpec, model: BuiltModel, rows: int, context: int, device: Device) -> float:
    """Tokens per second of a real training step, on random tokens in four packed conversations per row."""
    model.to(device.torch).train()
    lora = lora_of(spec, model)
    if lora is not None:
        lora.apply(model)
    tokens = torch.randint(model.vocab_size, (rows, context + 1), device=device.torch)
    positions = torch.arange(context, device=device.torch)[None].expand(rows, -1) % max(context // 4, 1)
    targets = tokens[:, 1:].where(torch.arange(context, device=device.torch) % TARGET_SHARE == 0, IGNORE)
    loss_fn = SFTLoss()

    def step(count: int) -> None:
        batch = Batch(tokens[:, :count].contiguous(), targets[:, :count].contiguous(), positions[:, :count])
        with device.autocast():
            loss, _ = loss_fn(model, batch)
        loss.backward()
        model.zero_grad(set_to_none=True)
        device.wait()

    step(min(context, 32))
    started = time.perf_counter()
    step(context)
    return rows * context / (time.perf_counter() - started)


def tuning_eval_size(spec: BuildSpec, plan: Plan) -> EvalSize:
    """What can be measured of every model of the run in the evaluation's share of the time."""
    models = 1 + len(plan.stages)
    size = EvalSize.within(EVALUATION_SHARE * 60 * spec.minutes * READING * plan.tokens_per_second / models)
    aligned = any(stage.takes_feedback or stage.scores for stage in map(get_stage, (s.stage for s in plan.stages)))
    return size if aligned else replace(size, pairs=0)


def _reason(seconds: float, learning: int, parameters: int, speed: float, stages: tuple[StagePlan, ...]) -> str:
    what = "all weights" if learning == parameters else f"adapters of {learning:,} parameters"
    steps = " and ".join(f"{stage.stage} gets {stage.steps} steps or {stage.tokens:,} tokens" for stage in stages)
    return (
        f"{seconds:.0f} s are left for training. The model has {parameters:,} parameters; with {what} it trains at "
        f"{speed:,.0f} tokens/s here, so {steps}."
    )
