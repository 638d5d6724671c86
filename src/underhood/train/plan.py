"""The one dial: from minutes to a model and step counts that fill them on this machine.

The planner knows three things: how much of the time goes to what, which size of model suits how much compute
(`SIZES`), and how fast this machine really runs a training step of that size, which it measures. The result is a
plan of fixed step counts: a resumed run follows it to the letter, however fast the machine is by then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.core.protocols import ModelSpec
from underhood.data.batch import Batch
from underhood.models.decoder import DecoderSpec, qwen3_shaped
from underhood.train.hardware import Hardware
from underhood.train.loss import next_token_loss
from underhood.train.optim import OptimizerSpec
from underhood.train.plan_overrides import PlanOverrides


@dataclass(frozen=True, kw_only=True)
class ModelSize:
    """One of the model sizes the planner chooses from, with its batch size."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    context: int
    rows: int

    def spec(self, vocab_size: int) -> DecoderSpec:
        return qwen3_shaped(
            vocab_size=vocab_size,
            context=self.context,
            width=self.width,
            layers=self.layers,
            heads=self.heads,
            kv_heads=self.kv_heads,
        )


SIZES = (
    ModelSize(width=128, layers=3, heads=2, kv_heads=1, context=256, rows=8),
    ModelSize(width=192, layers=4, heads=2, kv_heads=2, context=512, rows=4),
    ModelSize(width=256, layers=4, heads=2, kv_heads=2, context=512, rows=4),
    ModelSize(width=320, layers=5, heads=5, kv_heads=5, context=512, rows=4),
    ModelSize(width=384, layers=6, heads=6, kv_heads=3, context=512, rows=8),
    ModelSize(width=512, layers=8, heads=8, kv_heads=4, context=512, rows=16),
    ModelSize(width=768, layers=12, heads=12, kv_heads=4, context=1024, rows=32),
    ModelSize(width=1024, layers=16, heads=16, kv_heads=8, context=1024, rows=64),
)
"""Model sizes, ascending. The small ones have few, wide heads: on a CPU attention's cost is mostly per head."""

TOKENS_PER_PARAMETER = 0.25
"""A size is taken when the budget shows each parameter that multiplies at least this many tokens. Far fewer than the
20 of Hoffmann et al. 2022, which minimise the loss at the end of very long runs over data that never repeat."""

FIRST_SIZE = 1
"""Where the search for the largest size within reach begins: small enough for any machine to time in a second."""

SUSTAINED = 0.95
"""Share of the probe's speed that is kept up for minutes: the processor warms up and neighbours come and go. On two
shared server cores 0.78 to 1.3 was measured in five-minute runs."""

SHARES = {"pretrain": 0.62, "sft": 0.33, "dpo": 0.05}
"""How the training time is split between the stages."""

LEAST_TRAINING = 0.25
"""Share of the remaining time that training always gets, even when evaluation will then overrun the budget."""

SFT_EPOCHS = 6.0
DPO_EPOCHS = 1.0
"""The most often that each stage reads its data; time that is left goes to pretraining."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a training stage will do, and the seconds that should take.

    Attributes:
        steps: updates.
        rows: rows of tokens per update; preference pairs, for alignment.
        context: tokens per row, or per pair.
    """

    steps: int
    rows: int
    context: int
    seconds: float

    @property
    def tokens(self) -> int:
        return self.steps * self.rows * self.context


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that was decided before training began.

    Attributes:
        model: the decoder's spec.
        pretrain, sft, dpo: the stages; None when the job leaves the stage out.
        tokens_per_second: measured speed of a training step of this model here.
        reason: why, in sentences for the user.
    """

    model: DecoderSpec
    pretrain: StagePlan
    sft: StagePlan | None
    dpo: StagePlan | None
    tokens_per_second: float
    reason: str


def training_flops(spec: ModelSpec) -> float:
    """Floating-point operations per token of a forward and backward pass: three times those of the forward pass."""
    return 3.0 * spec.flops_per_token


def choose_size(seconds: float, speed_of: Callable[[ModelSize], float], vocab_size: int) -> ModelSize:
    """The largest size whose parameters see enough tokens in `seconds` of pretraining.

    A timed step of one size tells how many operations per second training reaches here; by that the largest size
    within reach is guessed, timed in its turn, and so on until a guess is one that was timed already. The limit of
    the matrix products would be cheaper to measure and no guide: it varied threefold within an hour on a machine whose
    training steps varied by half.

    Args:
        speed_of: tokens per second of a training step of a size.
    """
    flops = [training_flops(size.spec(vocab_size)) for size in SIZES]
    timed: dict[int, float] = {}
    size = FIRST_SIZE
    while size not in timed:
        timed[size] = seconds * speed_of(SIZES[size]) * flops[size]  # operations within reach
        fits = [timed.get(i, timed[size]) >= TOKENS_PER_PARAMETER * flops[i] ** 2 / 6 for i in range(len(SIZES))]
        size = max((i for i, fit in enumerate(fits) if fit), default=0)
    return SIZES[size]


def measure_speed(spec: DecoderSpec, optimizer: OptimizerSpec, rows: int, device: Device, seconds: float) -> float:
    """Tokens per second of real training steps (forward, backward, clipping, update) on random tokens."""
    model = spec.initialize(seed=0).to(device.torch)
    stepper = optimizer.build(model)
    tokens = torch.randint(spec.vocab_size, (rows, spec.context + 1), device=device.torch)
    positions = torch.arange(spec.context, device=device.torch)[None].expand(rows, -1) % max(spec.context // 2, 1)
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), positions)

    def step() -> None:
        with device.autocast():
            loss = next_token_loss(model, batch)
        float(loss.detach())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        stepper.step(1e-6)
        model.zero_grad(set_to_none=True)

    step()
    device.wait()
    start, count = time.perf_counter(), 0
    while count < 2 or time.perf_counter() - start < seconds:
        step()
        device.wait()
        count += 1
    return count * rows * spec.context / (time.perf_counter() - start)


def make_plan(
    *,
    seconds: float,
    hardware: Hardware,
    optimizer: OptimizerSpec,
    vocab_size: int,
    overrides: PlanOverrides,
    sft_tokens: int,
    pairs: int,
    pair_tokens: int,
    reserve: Callable[[float], float] = lambda speed: 0.0,
    probe_seconds: float = 3.0,
) -> Plan:
    """Chooses model and step counts so that training takes about `seconds`.

    Args:
        seconds: what is left of the job, the probe included.
        sft_tokens: tokens of all conversations together; 0 leaves fine-tuning out.
        pairs, pair_tokens: preference pairs, and tokens of an average one; no pairs leave alignment out.
        reserve: seconds to keep for what follows training, given the speed of training in tokens per second.
        probe_seconds: how long to time training steps.

    Raises:
        UserError: the fixed proportions don't fit each other.
    """
    stages = [name for name, amount in (("pretrain", 1), ("sft", sft_tokens), ("dpo", pairs)) if amount]
    total = sum(SHARES[name] for name in stages)
    started = time.perf_counter()

    def speed_of(size: ModelSize, least: float) -> float:
        return SUSTAINED * measure_speed(size.spec(vocab_size), optimizer, size.rows, hardware.device, least)

    try:
        pretraining = 0.8 * seconds * SHARES["pretrain"] / total
        size = _with_overrides(
            choose_size(pretraining, lambda size: speed_of(size, probe_seconds / 3), vocab_size), overrides
        )
        spec = size.spec(vocab_size)
        speed = speed_of(size, probe_seconds)
    except ValueError as error:
        raise UserError(f"the model can't have these proportions: {error}") from error
    training = seconds - (time.perf_counter() - started) - reserve(speed)
    training = max(training, LEAST_TRAINING * seconds, 1.0)
    budget = {name: training * SHARES[name] / total for name in stages}

    def stage(name: str, rows: int, row_tokens: int, most: float, wished: int | None, extra: float = 1.0) -> StagePlan:
        per_step = rows * row_tokens * extra / speed
        steps = wished or max(1, round(min(budget[name] / per_step, most)))
        return StagePlan(steps=steps, rows=rows, context=row_tokens, seconds=steps * per_step)

    sft = dpo = None
    if sft_tokens:
        most = SFT_EPOCHS * sft_tokens / (size.rows * size.context)
        sft = stage("sft", size.rows, size.context, most, overrides.sft_steps)
        budget["pretrain"] += max(0.0, budget["sft"] - sft.seconds)
    if pairs:
        rows = max(1, min(pairs, size.rows * size.context // pair_tokens))
        # The frozen reference reads each pair once more, forwards only: a third of a training step.
        dpo = stage("dpo", rows, pair_tokens, DPO_EPOCHS * pairs / rows, overrides.dpo_steps, extra=4 / 3)
        budget["pretrain"] += max(0.0, budget["dpo"] - dpo.seconds)
    pretrain = stage("pretrain", size.rows, size.context, math.inf, overrides.pretrain_steps)
    return Plan(
        model=spec,
        pretrain=pretrain,
        sft=sft,
        dpo=dpo,
        tokens_per_second=speed,
        reason=_reason(training, hardware, spec, speed, pretrain),
    )


def check_overrides(overrides: PlanOverrides, vocab_size: int) -> None:
    """Finds out before any work whether the fixed proportions fit each other at any size.

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
    fixed = {name: getattr(overrides, name) for name in ("width", "layers", "heads", "kv_heads", "context", "rows")}
    fixed = {name: value for name, value in fixed.items() if value is not None}
    if "width" in fixed and "heads" not in fixed:
        fixed["heads"] = max(1, fixed["width"] // 64)
    if "heads" in fixed and "kv_heads" not in fixed:
        fixed["kv_heads"] = fixed["heads"]
    return replace(size, **fixed)


def _reason(seconds: float, hardware: Hardware, spec: DecoderSpec, speed: float, pretrain: StagePlan) -> str:
    flops = training_flops(spec)
    return (
        f"{seconds:.0f} s are left for training. A {spec.layers}-layer model of width {spec.width} trains at "
        f"{speed:,.0f} tokens/s here ({100 * speed * flops / hardware.flops:.0f} % of the measured "
        f"{hardware.flops / 1e9:.0f} GFLOP/s), so pretraining gets {pretrain.steps} steps or "
        f"{pretrain.tokens:,} tokens."
    )
