"""Jiang et al. 2024: eight feed-forwards of which each token uses two, against one, at equal work and equal size."""

from __future__ import annotations

import torch
from torch import Tensor

from underhood.core.figures import Heat
from underhood.core.trial import Trial
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.presets import active_parameter_count, count_parameters, preset
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec, FeedForwardSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.moe import MoESpec
from underhood.path.lib.expert_choices import choices, repetition
from underhood.path.lib.kinds_of_problem import error_after_training
from underhood.path.lib.mixed_text import CHARACTERS, KINDS, mixed_text, mixed_windows
from underhood.path.lib.seed_series import over_seeds
from underhood.path.lib.short_training import train_by_step
from underhood.train.cross_entropy import cross_entropy
from underhood.train.router_balance import watching_routers

EXPERTS, ACTIVE, LENGTH = 8, 2, 64
D_MODEL, D_FF = 32, 32
STEPS = 250
"""Of the training on eight kinds of problem."""
BALANCING = 0.05
"""Weight of the load-balancing loss. Large models use 0.01 to 0.02, over thousands of times as many steps."""


def run(trial: Trial) -> None:
    mixture = MoESpec(experts=EXPERTS, experts_per_token=ACTIVE, d_ff=D_FF)
    losses: dict[str, list[float]] = {}
    loads: list[Tensor] = []
    for seed in trial.each_seed():
        if trial.wants("kinds"):
            spec = MoESpec(experts=EXPERTS, experts_per_token=ACTIVE, d_ff=16)
            ours = error_after_training(spec, seed, STEPS, random_router=trial.ablated("router"))
            theirs = error_after_training(GatedMLPSpec(d_ff=16 * ACTIVE), seed, STEPS)
            trial.measure("kinds", ours / theirs)
        if not trial.wants("balance"):
            continue
        model = train(trial, mixture, seed, balancing=0.0 if trial.ablated("balancing") else BALANCING)
        first_KLNT, load_KLE = choices(model)
        trial.measure("balance", float(load_KLE.mean(dim=0).max()) * EXPERTS)
        loads.append(load_KLE[:, -1])
        if trial.is_ablation or not trial.wants("better"):
            continue
        trial.measure("repeat", repetition(first_KLNT))
        rivals = {
            "one, equal work": GatedMLPSpec(d_ff=ACTIVE * D_FF),
            "one, equal weights": GatedMLPSpec(d_ff=EXPERTS * D_FF),
        }
        values = {"eight experts": held_out(model)}
        for name, feedforward in trial.each(rivals.items(), "feed-forward"):
            values[name] = held_out(train(trial, feedforward, seed))
        for name, value in values.items():
            losses.setdefault(name, []).append(value)
        trial.measure("better", values["eight experts"] - values["one, equal work"])
        trial.measure("dense", values["one, equal weights"] - values["eight experts"])
    if trial.is_ablation:
        return
    total, active = count_parameters(preset("mixtral-8x7b"))
    trial.measure("active", active)
    trial.oracle("Mixtral 8x7B has 46,702,792,704 parameters", total == 46_702_792_704, f"{total:,}")
    check(trial)
    if losses:
        specs = (mixture, *(GatedMLPSpec(d_ff=times * D_FF) for times in (ACTIVE, EXPERTS)))
        counts = [counted(shaped(spec).build()) for spec in specs]
        trial.plot(
            title="More weights for the same work",
            x="feed-forward",
            y="nats per character",
            kind="bars",
            names=tuple(losses),
            series=[over_seeds("held-out loss", [*losses.values()])],
            note=f"Weights in all (and used by a token): {', '.join(counts)}. Lines: range over seeds.",
        )
    trial.figure(
        Heat(
            title="Which expert reads what",
            values=tuple(map(tuple, torch.stack(loads)[0].tolist())),
            rows=KINDS,
            columns=tuple(f"expert {number + 1}" for number in range(EXPERTS)),
            note="Share of a text's choices that falls on each expert of the last layer, first seed (even: 0.125).",
        )
    )


def counted(model: Decoder) -> str:
    return f"{parameter_count(model):,} ({active_parameter_count(model):,})"


def shaped(feedforward: FeedForwardSpec) -> DecoderSpec:
    block = BlockSpec(mixer=AttentionSpec(heads=4), feedforward=feedforward)
    return DecoderSpec(vocab_size=CHARACTERS, context_length=LENGTH, d_model=D_MODEL, layers=1, blocks=(block,))


def train(trial: Trial, feedforward: FeedForwardSpec, seed: int, *, balancing: float = 0.0) -> Decoder:
    model = shaped(feedforward).initialize(seed=seed)
    train_ids, _ = mixed_text()
    steps, each = trial.by_scale(smoke=(60, 3), report=(120, 4))
    with watching_routers(model) as balance:

        def loss(step: int) -> Tensor:
            row_BT = mixed_windows(train_ids, each, LENGTH, seed * 1_000_003 + step)
            value = cross_entropy(model(row_BT[:, :-1]).flatten(0, 1), row_BT[:, 1:].flatten())
            return value + balancing * balance.take() if isinstance(feedforward, MoESpec) else value

        return train_by_step(model, loss, steps, fall=2.0, tell=trial.progress)


@torch.no_grad()
def held_out(model: Decoder) -> float:
    row_BT = mixed_windows(mixed_text()[1], 64, LENGTH, seed=0)
    return float(cross_entropy(model(row_BT[:, :-1]).flatten(0, 1), row_BT[:, 1:].flatten()))


def check(trial: Trial) -> None:
    """Every expert for every token, weighted by the softmax of the two best scores and zero elsewhere."""
    torch.manual_seed(0)
    layer = MoESpec(experts=EXPERTS, experts_per_token=ACTIVE, d_ff=16).build(12)
    x_BTD = torch.randn(2, 9, 12)
    ctx = ForwardContext(torch.zeros(2, 9), None, None)
    with torch.no_grad():
        score_BTE = layer.router(x_BTD)
        least_BT1 = score_BTE.topk(ACTIVE).values[..., -1:]
        weight_BTE = score_BTE.masked_fill(score_BTE < least_BT1, -torch.inf).softmax(dim=-1)
        outputs_BTED = torch.stack([expert(x_BTD, ctx) for expert in layer.experts], dim=2)
        worst = float((layer(x_BTD, ctx) - (weight_BTE[..., None] * outputs_BTED).sum(dim=2)).abs().max())
    trial.oracle("grouped experts are the sum over all, two of them weighted", worst < 1e-6, f"difference {worst:.1e}")
