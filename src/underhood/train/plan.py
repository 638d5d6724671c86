"""The one dial: from minutes to a model and step counts that fill them on this machine.

The planner knows three things: how much of the time each stage gets, which size of model suits how much compute
(`SIZES`), and how fast this machine really runs a training step of that size, which it measures. The result is a
plan of fixed step counts: a resumed run follows it to the letter, however fast the machine is by then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import torch

from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.core.protocols import CountedModel, ModelSpec
from underhood.data.batch import Batch
from underhood.models.architectures import ARCHITECTURES
from underhood.train.hardware import Hardware
from underhood.train.loss import next_token_loss
from underhood.train.optim import OptimizerSpec, scale_lr
from underhood.train.plan_overrides import PlanOverrides


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """A rung of the ladder: the model's proportions and the batch it likes."""

    d_model: int
    layers: int
    heads: int
    kv_heads: int
    context_length: int
    batch_size: int

    architecture: str = "qwen3"

    def spec(self, vocab_size: int) -> ModelSpec:
        return ARCHITECTURES[self.architecture](
            vocab_size=vocab_size,
            context_length=self.context_length,
            d_model=self.d_model,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
        )


SIZES = (
    ModelSize(d_model=128, layers=3, heads=2, kv_heads=1, context_length=256, batch_size=8),
    ModelSize(d_model=192, layers=4, heads=2, kv_heads=2, context_length=512, batch_size=4),
    ModelSize(d_model=256, layers=4, heads=2, kv_heads=2, context_length=512, batch_size=4),
    ModelSize(d_model=320, layers=5, heads=5, kv_heads=5, context_length=512, batch_size=4),
    ModelSize(d_model=384, layers=6, heads=6, kv_heads=3, context_length=512, batch_size=8),
    ModelSize(d_model=512, layers=8, heads=8, kv_heads=4, context_length=512, batch_size=16),
    ModelSize(d_model=768, layers=12, heads=12, kv_heads=4, context_length=1024, batch_size=32),
    ModelSize(d_model=1024, layers=16, heads=16, kv_heads=8, context_length=1024, batch_size=64),
)
"""Shapes by size. The small ones have few, wide heads: on a CPU attention's cost is mostly per head."""

TOKENS_PER_PARAMETER = 0.25
"""A rung is taken when the budget shows each parameter that multiplies at least this many tokens. Far fewer than the
20 of Hoffmann et al. 2022, which minimise the loss at the end of very long runs over data that never repeat."""

FIRST_SIZE = 1
"""Where the search for the largest rung within reach begins: small enough for any machine to time in a second."""

SUSTAINED = 0.95
"""Share of the probe's speed that is kept up for minutes: the processor warms up and neighbours come and go. On two
shared server cores 0.78 to 1.3 was measured in five-minute runs."""

LEAST_STEPS = 10
"""Steps planned at least: a machine that was busy when it was timed may be faster soon, and the clock decides then."""

LEAST_UPDATES = 60
"""Steps that any text is worth: a few kilobytes fill a batch or two, and a model needs more steps than that."""

LEAST_TRAINING = 0.25
"""Share of the remaining time that training always gets, even when evaluation will then overrun the budget."""


@dataclass(frozen=True, kw_only=True)
class StageRequest:
    """What a training stage asks of the planner.

    Attributes:
        stage: its name.
        share: of the training time, relative to the other stages.
        tokens: of its data, each read once; infinite if it never runs out.
        row_tokens: tokens of an example that gets a row of its own; None packs rows of the model's context.
        epochs: how often the data is read at most. Time that is left goes to a stage whose data is infinite.
        unique_tokens: of a text that is read again and again; passes: how often at most (see `train.text_amount`).
        dropout: where it is read half as often or more.
        cost: time per token, as a multiple of a pretraining step's.
        steps: fixed by the user; None for the planner to decide.
    """

    stage: str
    share: float
    tokens: float = math.inf
    row_tokens: int | None = None
    epochs: float = math.inf
    unique_tokens: float = math.inf
    passes: float = math.inf
    dropout: float = 0.0
    cost: float = 1.0
    steps: int | None = None


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a training stage will do, and the seconds that should take.

    Attributes:
        stage: its name.
        steps: optimiser steps.
        rows: rows of tokens per update; preference pairs, for alignment.
        context: tokens per row, or per pair.
        seconds: what that should take; unless `fixed`, what it may take.
        fixed: the user chose the number of steps. Otherwise it follows the clock (see `train.step_budget`).
        max_steps: the most that the data is worth on a faster machine; None for no limit.
        passes: how often its text is read, where that is what ends the stage.
        allowed: seconds that it may take where its data ends it sooner; None for `seconds`.
        dropout: residual dropout (see `train.dropout`).
    """

    stage: str
    steps: int
    batch_size: int
    context_length: int
    seconds: float
    fixed: bool = False
    max_steps: int | None = None
    passes: float | None = None
    allowed: float | None = None
    dropout: float = 0.0

    @property
    def tokens(self) -> int:
        return self.steps * self.batch_size * self.context_length


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that was decided before training began.

    Attributes:
        model: the model's spec.
        stages: of training, in order.
        tokens_per_second: measured speed of a training step of this model here.
        reason: why, in sentences for the user.
    """

    model: ModelSpec
    stages: tuple[StagePlan, ...]
    tokens_per_second: float
    reason: str

    def find(self, stage: str) -> StagePlan | None:
        """The plan of one stage; None if the job leaves it out."""
        return next((plan for plan in self.stages if plan.stage == stage), None)

    def with_stage(self, changed: StagePlan) -> "Plan":
        """The same plan with one stage replaced."""
        return replace(self, stages=tuple(changed if p.stage == changed.stage else p for p in self.stages))


def training_flops(spec: ModelSpec) -> float:
    """Floating-point operations per token of a forward and backward pass: three times those of the forward pass."""
    return 3.0 * spec.flops_per_token


def choose_size(
    seconds: float, speed_of: Callable[[ModelSize], float], vocab_size: int, most_tokens: float = math.inf
) -> ModelSize:
    """The largest rung whose parameters see enough tokens in `seconds` of pretraining.

    A timed step of one rung tells how many operations per second training reaches here; by that the largest rung
    within reach is guessed, timed in its turn, and so on until a guess is one that was timed already. The limit of
    the matrix products would be cheaper to measure and no guide: it varied threefold within an hour on a machine whose
    training steps varied by half.

    Args:
        speed_of: tokens per second of a training step of a rung.
        most_tokens: that the text is worth, however much time there is.
    """
    flops = [training_flops(size.spec(vocab_size)) for size in SIZES]
    timed: dict[int, float] = {}
    rung = FIRST_SIZE
    while rung not in timed:
        timed[rung] = seconds * speed_of(SIZES[rung]) * flops[rung]  # operations within reach
        operations = [min(timed.get(i, timed[rung]), most_tokens * flops[i]) for i in range(len(SIZES))]
        fits = [operations[i] >= TOKENS_PER_PARAMETER * flops[i] ** 2 / 6 for i in range(len(SIZES))]
        rung = max((i for i, fit in enumerate(fits) if fit), default=0)
    return SIZES[rung]


def measure_speed(spec: ModelSpec, optimizer: OptimizerSpec, batch_size: int, device: Device, seconds: float) -> float:
    """Tokens per second of real training steps (forward, backward, clipping, update) on random tokens."""
    model = spec.initialize(seed=0).to(device.torch)
    stepper = optimizer.build(model)
    scale_lr(stepper, 1e-6)
    length = spec.context_length
    assert length is not None, "a model that is trained by steps has a context length"
    tokens = torch.randint(spec.vocab_size, (batch_size, length + 1), device=device.torch)
    positions = torch.arange(length, device=device.torch)[None].expand(batch_size, -1) % max(length // 2, 1)
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), positions)

    def step() -> None:
        with device.autocast():
            loss = next_token_loss(model, batch)
        float(loss.detach())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step()
        model.zero_grad(set_to_none=True)

    step()
    device.wait()
    start, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - start < seconds:
        step()
        device.wait()
        count += 1
    return count * batch_size * length / (time.perf_counter() - start)


def make_plan(
    *,
    seconds: float,
    hardware: Hardware,
    optimizer: OptimizerSpec,
    vocab_size: int,
    overrides: PlanOverrides,
    stages: Sequence[StageRequest],
    reserve: Callable[[float], float] = lambda speed: 0.0,
    probe_seconds: float = 3.0,
) -> Plan:
    """Chooses model and step counts so that training takes about `seconds`.

    Args:
        seconds: time left for the job, the probe included.
        stages: what each stage asks for, in order. The first decides how large the model may be.
        reserve: seconds to keep for what follows training, given the speed of training in tokens per second.
        probe_seconds: how long to time training steps.

    Raises:
        UserError: the wished-for proportions don't fit each other.
    """
    counted = _with_overrides(SIZES[FIRST_SIZE], overrides)
    if isinstance(counted.spec(vocab_size).build(), CountedModel):
        return _plan_counting(counted, vocab_size, stages[0])
    total = sum(request.share for request in stages)
    started = time.perf_counter()

    def speed_of(size: ModelSize, least: float) -> float:
        return SUSTAINED * measure_speed(size.spec(vocab_size), optimizer, size.batch_size, hardware.device, least)

    try:
        first = 0.8 * seconds * stages[0].share / total
        size = SIZES[FIRST_SIZE]
        if None in (overrides.d_model, overrides.layers, overrides.context_length, overrides.batch_size):
            worth = stages[0].passes * stages[0].unique_tokens
            size = choose_size(first, lambda size: speed_of(size, probe_seconds / 3), vocab_size, worth)
        size = _with_overrides(size, overrides)
        spec = size.spec(vocab_size)
        speed = speed_of(size, probe_seconds)
    except ValueError as error:
        raise UserError(f"the model can't have these proportions: {error}") from error
    training = seconds - (time.perf_counter() - started) - reserve(speed)
    training = max(training, LEAST_TRAINING * seconds, 1.0)
    plans, unused = [], 0.0
    # Those whose data runs out first: what they leave goes to the one whose data does not.
    for request in sorted(stages, key=lambda request: math.isinf(request.tokens)):
        budget = training * request.share / total
        budget += unused if math.isinf(request.tokens) else 0.0
        plan = plan_stage(request, budget, batch_size=size.batch_size, context_length=size.context_length, speed=speed)
        unused = 0.0 if math.isinf(request.tokens) else unused + max(0.0, budget - plan.seconds)
        plans.append(plan)
    order = [request.stage for request in stages]
    plans = tuple(sorted(plans, key=lambda plan: order.index(plan.stage)))
    reason = _reason(training, hardware, size, spec, speed, plans[0])
    return Plan(model=spec, stages=plans, tokens_per_second=speed, reason=reason)


def plan_stage(
    request: StageRequest, seconds: float, *, batch_size: int, context_length: int, speed: float
) -> StagePlan:
    """As many steps as fit into `seconds`, and as the stage's data is worth.

    Args:
        batch_size, context_length: rows of a step and tokens of a row.
        speed: of training, in tokens per second.
    """
    rows, row_tokens = batch_size, context_length
    if request.row_tokens is not None:
        row_tokens = request.row_tokens
        rows = max(1, min(int(request.tokens) // row_tokens, batch_size * context_length // row_tokens))
    per_step = rows * row_tokens * request.cost / speed
    worth = max(request.passes * request.unique_tokens, LEAST_UPDATES * rows * row_tokens)
    most = min(request.epochs * request.tokens, worth) / (rows * row_tokens)
    fixed = request.steps is not None
    small = not fixed and worth < math.inf and most == worth / (rows * row_tokens) and most <= seconds / per_step
    fitting = request.steps or max(1, round(min(seconds / per_step, most)))
    return StagePlan(
        stage=request.stage,
        steps=fitting if fixed else max(fitting, int(min(LEAST_STEPS, most))),
        batch_size=rows,
        context_length=row_tokens,
        seconds=fitting * per_step,
        fixed=fixed,
        max_steps=None if fixed or math.isinf(most) else max(1, round(most)),
        passes=fitting * rows * row_tokens / request.unique_tokens if small else None,
        allowed=seconds if small else None,
        dropout=request.dropout if 2 * fitting * rows * row_tokens >= worth else 0.0,
    )


def _plan_counting(size: ModelSize, vocab_size: int, first: StageRequest) -> Plan:
    """One pass over the text; the later stages need gradients."""
    stage = StagePlan(
        stage=first.stage, steps=1, batch_size=size.batch_size, context_length=size.context_length, seconds=0.0
    )
    reason = f"A {size.architecture} model counts the text once, so {first.stage} is one step and no stage follows it."
    return Plan(model=size.spec(vocab_size), stages=(stage,), tokens_per_second=0.0, reason=reason)


def check_overrides(overrides: PlanOverrides, vocab_size: int) -> None:
    """Finds out before any work whether the wished-for proportions fit each other on any rung of the ladder.

    Raises:
        UserError: they don't.
    """
    problem: ValueError | None = None
    for size in SIZES:
        try:
            with torch.device("meta"):
                _with_overrides(size, overrides).spec(vocab_size).build()
        except ValueError as error:
            problem = problem or error
        else:
            return
    raise UserError(f"the model can't have these proportions: {problem}")


def _with_overrides(size: ModelSize, overrides: PlanOverrides) -> ModelSize:
    fixed = {each.name: getattr(overrides, each.name) for each in fields(overrides)}
    fixed = {name: value for name, value in fixed.items() if value is not None}
    if "d_model" in fixed and "heads" not in fixed:
        fixed["heads"] = max(1, fixed["d_model"] // 64)
    if "heads" in fixed and "kv_heads" not in fixed:
        fixed["kv_heads"] = fixed["heads"]
    return replace(size, **fixed)


def _reason(
    seconds: float, hardware: Hardware, size: ModelSize, spec: ModelSpec, speed: float, first: StagePlan
) -> str:
    flops = training_flops(spec)
    small = ""
    if first.passes is not None:
        small = (
            f" The text is small, so a model of fitting size reads it {first.passes:.1f} times"
            f"{f', with dropout {first.dropout:g}' if first.dropout else ''}: more would be learnt by heart."
        )
    return (
        f"{seconds:.0f} s are left for training. A {size.layers}-layer model of width {size.d_model} trains at "
        f"{speed:,.0f} tokens/s here ({100 * speed * flops / hardware.flops:.0f} % of the measured "
        f"{hardware.flops / 1e9:.0f} GFLOP/s), so {first.stage} gets {first.steps} steps or "
        f"{first.tokens:,} tokens.{small}"
    )
