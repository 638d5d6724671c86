"""The one dial: from minutes to a model and step counts that fill them on this machine.

The planner knows three things: how much of the time goes to what, which shape of model suits how much compute
(`LADDER`), and how fast this machine really runs a training step of that shape, which it measures. The result is a
plan of fixed step counts: a resumed run follows it to the letter, however fast the machine is by then.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch

from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.data.batch import Batch
from underhood.models.decoder import Decoder, DecoderSpec, initialize, qwen3_shaped
from underhood.train.hardware import Hardware
from underhood.train.loss import next_token_loss
from underhood.train.optim import OptimizerSpec


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A rung of the ladder: the model's proportions and the batch it likes."""

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


LADDER = (
    Shape(width=128, layers=3, heads=2, kv_heads=1, context=256, rows=8),
    Shape(width=192, layers=4, heads=3, kv_heads=3, context=256, rows=8),
    Shape(width=256, layers=4, heads=4, kv_heads=2, context=256, rows=8),
    Shape(width=320, layers=5, heads=5, kv_heads=5, context=256, rows=8),
    Shape(width=384, layers=6, heads=6, kv_heads=3, context=512, rows=8),
    Shape(width=512, layers=8, heads=8, kv_heads=4, context=512, rows=16),
    Shape(width=768, layers=12, heads=12, kv_heads=4, context=1024, rows=32),
    Shape(width=1024, layers=16, heads=16, kv_heads=8, context=1024, rows=64),
)

TOKENS_PER_PARAMETER = 0.15
"""A rung is taken when the budget shows each of its parameters at least this many tokens."""

EFFICIENCY = 0.5
"""Share of the matrix-product limit that a training step is expected to reach, before it is measured."""

SHARES = {"pretrain": 0.74, "sft": 0.18, "dpo": 0.08}
"""How the training time is split between the stages."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a training stage will do: updates, rows per update, tokens per row, and the seconds that should take."""

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


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What the user fixed; None is for the planner to decide."""

    width: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    context: int | None = None
    rows: int | None = None
    pretrain_steps: int | None = None
    sft_steps: int | None = None
    dpo_steps: int | None = None


def training_flops(spec: DecoderSpec) -> float:
    """Floating-point operations per token of a forward and backward pass.

    Six per parameter that multiplies (the embedding only looks up), and twelve per layer, head dimension and visible
    position for attention, of which causal order leaves half (Kaplan et al. 2020, table 1; Hoffmann et al. 2022, F).
    """
    with torch.device("meta"):
        model = Decoder(spec)
    multiplying = sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and "embed." not in name)
    multiplying += spec.vocab_size * spec.width
    attention = sum(
        6.0 * block.mixer.heads * block.mixer.width_of_head(spec.width) * spec.context  # type: ignore[attr-defined]
        for block in (spec.block(layer) for layer in range(spec.layers))
        if hasattr(block.mixer, "heads")
    )
    return 6.0 * multiplying + attention


def choose_shape(seconds: float, hardware: Hardware, vocab_size: int) -> Shape:
    """The largest rung whose parameters see enough tokens in `seconds` of pretraining."""
    chosen = LADDER[0]
    for shape in LADDER:
        per_token = training_flops(shape.spec(vocab_size))
        tokens = seconds * EFFICIENCY * hardware.flops / per_token
        if tokens >= TOKENS_PER_PARAMETER * per_token / 6:
            chosen = shape
    return chosen


def measure_speed(spec: DecoderSpec, optimizer: OptimizerSpec, rows: int, device: Device, seconds: float) -> float:
    """Tokens per second of real training steps (forward, backward, update) on random tokens."""
    model = initialize(spec.build(), seed=0).to(device.torch)
    stepper = optimizer.build(model)
    tokens = torch.randint(spec.vocab_size, (rows, spec.context + 1), device=device.torch)
    positions = torch.arange(spec.context, device=device.torch)[None].expand(rows, -1) % max(spec.context // 2, 1)
    batch = Batch(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous(), positions)

    def step() -> None:
        with device.autocast():
            loss = next_token_loss(model, batch)
        loss.backward()
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
    wishes: Wishes,
    sft_tokens: int,
    dpo_tokens: int,
    probe_seconds: float = 3.0,
) -> Plan:
    """Chooses model and step counts so that training takes about `seconds`.

    Args:
        seconds: what is left for the training stages, the probe included.
        sft_tokens, dpo_tokens: tokens of one epoch of each stage's data; 0 leaves the stage out.
        probe_seconds: how long to time training steps.

    Raises:
        UserError: the wished-for proportions don't fit each other.
    """
    stages = [name for name, tokens in (("pretrain", 1), ("sft", sft_tokens), ("dpo", dpo_tokens)) if tokens]
    total = sum(SHARES[name] for name in stages)
    training = max(seconds - probe_seconds - 1.0, 1.0)
    budget = {name: training * SHARES[name] / total for name in stages}
    shape = _wished(choose_shape(budget["pretrain"], hardware, vocab_size), wishes)
    try:
        spec = shape.spec(vocab_size)
        speed = measure_speed(spec, optimizer, shape.rows, hardware.device, probe_seconds)
    except ValueError as error:
        raise UserError(f"the model can't have these proportions: {error}") from error
    per_step = shape.rows * shape.context

    def stage(name: str, epochs: float, epoch_tokens: int, fixed: int | None) -> StagePlan | None:
        if name not in budget:
            return None
        steps = max(1, round(budget[name] * speed / per_step))
        if epoch_tokens:
            steps = min(steps, max(1, round(epochs * epoch_tokens / per_step)))
        steps = fixed or steps
        return StagePlan(steps=steps, rows=shape.rows, context=shape.context, seconds=steps * per_step / speed)

    sft = stage("sft", 8.0, sft_tokens, wishes.sft_steps)
    dpo = stage("dpo", 2.0, dpo_tokens, wishes.dpo_steps)
    # What a short fine-tuning set leaves over goes to pretraining.
    for name, planned in (("sft", sft), ("dpo", dpo)):
        if planned is not None:
            budget["pretrain"] += max(0.0, budget[name] - planned.seconds)
    pretrain = stage("pretrain", 0.0, 0, wishes.pretrain_steps)
    assert pretrain is not None
    return Plan(
        model=spec,
        pretrain=pretrain,
        sft=sft,
        dpo=dpo,
        tokens_per_second=speed,
        reason=_reason(seconds, hardware, spec, speed, pretrain),
    )


def _wished(shape: Shape, wishes: Wishes) -> Shape:
    fixed = {name: getattr(wishes, name) for name in ("width", "layers", "heads", "kv_heads", "context", "rows")}
    fixed = {name: value for name, value in fixed.items() if value is not None}
    if "width" in fixed and "heads" not in fixed:
        fixed["heads"] = max(1, fixed["width"] // 64)
    if "heads" in fixed and "kv_heads" not in fixed:
        fixed["kv_heads"] = fixed["heads"]
    return replace(shape, **fixed)


def _reason(seconds: float, hardware: Hardware, spec: DecoderSpec, speed: float, pretrain: StagePlan) -> str:
    flops = training_flops(spec)
    return (
        f"{seconds:.0f} s are left for training. A {spec.layers}-layer model of width {spec.width} trains at "
        f"{speed:,.0f} tokens/s here ({100 * speed * flops / hardware.flops:.0f} % of the measured "
        f"{hardware.flops / 1e9:.0f} GFLOP/s), so pretraining gets {pretrain.steps} steps or "
        f"{pretrain.tokens:,} tokens."
    )
