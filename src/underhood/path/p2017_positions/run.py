"""Positions that are added (Vaswani et al. 2017) or relative (Shaw et al. 2018), on a task that needs nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.norm import LayerNormSpec
from underhood.nn.positions import LearnedPositionSpec, PositionSpec, SinusoidalPositionSpec, sinusoids
from underhood.nn.relative_attention import RelativeAttentionSpec
from underhood.path.lib.attention_only import NoFeedForwardSpec
from underhood.path.lib.many_seeds import train_many

SYMBOLS, BACK, TRAINED, READ = 16, 3, 32, 64
BATCH, LR, WIDTH, HEADS = 16, 0.01, 32, 2


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How a model is told where its tokens are."""

    positions: PositionSpec | None = None
    mixer: AttentionSpec | RelativeAttentionSpec = AttentionSpec(heads=HEADS, rotary=None)


ARMS = {
    "none": Arm(),
    "sinusoidal": Arm(positions=SinusoidalPositionSpec()),
    "learned": Arm(positions=LearnedPositionSpec()),
    "relative, clip 4": Arm(mixer=RelativeAttentionSpec(heads=HEADS, clip=4)),
    "relative, clip 2": Arm(mixer=RelativeAttentionSpec(heads=HEADS, clip=2)),
}


def run(trial: Trial) -> None:
    trial.measure("rotation", rotation_error())
    seeds = list(trial.each_seed())
    right: dict[str, np.ndarray] = {}
    if trial.ablated("positions"):
        for far in accuracy(trial, Arm(), seeds)[:, TRAINED:].mean(axis=1):
            trial.measure("relative_far", far)
        return
    for name, arm in trial.each(ARMS.items(), "positions"):
        right[name] = accuracy(trial, arm, seeds)
    within, beyond = slice(BACK, TRAINED), slice(TRAINED, READ)
    inside = {name: table[:, within].mean(axis=1) for name, table in right.items()}
    outside = {name: table[:, beyond].mean(axis=1) for name, table in right.items()}
    for number in range(len(seeds)):
        trial.measure("order", inside["none"][number])
        trial.measure("same", inside["sinusoidal"][number] - inside["learned"][number])
        trial.measure("sinusoid_far", outside["sinusoidal"][number])
        trial.measure("cliff", outside["learned"][number])
        trial.measure("relative_far", outside["relative, clip 4"][number])
        trial.measure("clip", inside["relative, clip 4"][number] - inside["relative, clip 2"][number])
    places = tuple(range(BACK, READ))
    trial.plot(
        title=f"Copying the token {BACK} places back, after training on {TRAINED} tokens",
        x="place in the text",
        y="share of tokens that are right",
        series=[Series(name, places, table[:, BACK:].mean(axis=0)) for name, table in right.items()],
    )


def accuracy(trial: Trial, arm: Arm, seeds: list[int]) -> np.ndarray:
    """The share of unseen tokens that are right, by seed and place, in texts twice as long as in training."""
    models = [built(arm, seed) for seed in seeds]
    steps = trial.by_scale(smoke=120, report=300)
    train_many(models, lambda step: texts(step, len(models), TRAINED), loss, steps=steps, lr=LR)
    tokens_NBT, _ = texts(10**6, len(models), READ, batch=200)
    with torch.no_grad():
        shares = [
            (model(tokens_BT)[:, BACK:].argmax(-1) == tokens_BT[:, :-BACK]).double().mean(0)
            for model, tokens_BT in zip(models, tokens_NBT, strict=True)
        ]
    return np.pad(torch.stack(shares).numpy(), ((0, 0), (BACK, 0)))


def built(arm: Arm, seed: int) -> Decoder:
    """A decoder of one layer of attention and nothing else."""
    block = BlockSpec(mixer=arm.mixer, feedforward=NoFeedForwardSpec(), norm=None)
    spec = DecoderSpec(
        vocab_size=SYMBOLS,
        context_length=READ,
        d_model=WIDTH,
        layers=1,
        blocks=(block,),
        norm=LayerNormSpec(),
        positions=arm.positions,
    )
    model = spec.build()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 2:
                size = 1.0 if "embed." in name and "unembed" not in name else parameter.shape[1] ** -0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * size)
    return model


def texts(step: int, models: int, length: int, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """Random tokens, for each model its own; they are their own targets."""
    tokens = torch.randint(SYMBOLS, (models, batch, length), generator=torch.Generator().manual_seed(step))
    return tokens, tokens


def loss(logits_BTV: Tensor, tokens_BT: Tensor) -> Tensor:
    return F.cross_entropy(logits_BTV[:, BACK:].flatten(0, 1), tokens_BT[:, :-BACK].flatten())


def rotation_error() -> float:
    """Largest difference between encodings and those of the places ``shift`` before, with each pair turned."""
    worst, places, width = 0.0, torch.arange(1000), 64
    for shift in (1, 10, 500):
        here, there = (sinusoids(at, width, dtype=torch.float64) for at in (places, places + shift))
        angle = shift * 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
        sine, cosine = here[:, 0::2], here[:, 1::2]
        turned = (sine * angle.cos() + cosine * angle.sin(), cosine * angle.cos() - sine * angle.sin())
        worst = max(worst, float((there - torch.stack(turned, dim=-1).flatten(1)).abs().max()))
    return worst
