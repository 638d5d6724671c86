"""Shazeer 2020: the gated feed-forward against the plain one of as many weights."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.base import parameter_count
from underhood.models.presets import preset
from underhood.nn.block import FeedForwardSpec
from underhood.nn.feedforward import GatedMLPSpec, MLPSpec
from underhood.nn.forward_context import ForwardContext
from underhood.path.lib.letter_models import MIDDLES, by_eight, letter_model, loss_by_position, trained
from underhood.path.lib.seed_series import over_seeds

WIDTH = 4
GATED, PLAIN = GatedMLPSpec(d_ff=12), MLPSpec(d_ff=18, activation="gelu", bias=False)
STEPS, POINTS, RATE = 600, 128, 0.02


def run(trial: Trial) -> None:
    seeds = list(trial.seeds)
    gated: FeedForwardSpec = MLPSpec(d_ff=18, activation="silu", bias=False) if trial.ablated("gate") else GATED
    of_gated, of_plain = (errors(spec, seeds) for spec in (gated, PLAIN))
    curves: dict[str, list[Tensor]] = {"GELU": [], "SwiGLU": []}
    for index, seed in enumerate(trial.each_seed()):
        trial.measure("product", float(of_gated[-1, index] / of_plain[-1, index]))
        if not trial.is_ablation and trial.wants("loss"):
            feedforwards = {"GELU": MLPSpec(d_ff=252, activation="gelu", bias=False), "SwiGLU": GatedMLPSpec(d_ff=168)}
            for name, feedforward in trial.each(feedforwards.items(), "feed-forward"):
                model = trained(
                    letter_model(feedforward=feedforward), seed=seed, steps=150, batch=8, tell=trial.progress
                )
                curves[name].append(loss_by_position(model))
            trial.measure("loss", float((curves["SwiGLU"][-1] - curves["GELU"][-1]).mean()))
    if trial.is_ablation:
        return
    trial.measure("width", 256 * -(-(8 * 4096 // 3) // 256))
    check(trial)
    trial.plot(
        title="Learning to multiply two inputs",
        x="steps",
        y="mean squared error",
        log_y=True,
        series=[
            over_seeds(name, table, range(STEPS + 1)) for name, table in (("GELU", of_plain), ("SwiGLU", of_gated))
        ],
        note="Mean over seeds and their range; four inputs, four products of neighbours, 144 weights each.",
    )
    if curves["GELU"]:
        trial.plot(
            title="Held-out loss with each feed-forward",
            x="letters read before",
            y="nats per letter",
            series=[Series(name, MIDDLES, by_eight(rows)) for name, rows in curves.items()],
            note="Means over eight letters.",
        )


def errors(spec: FeedForwardSpec, seeds: list[int]) -> Tensor:
    """Squared error by step and seed while a layer learns ``y_i = x_i · x_(i+1)``; all seeds train side by side."""
    layers = []
    for seed in seeds:
        torch.manual_seed(seed)
        layers.append(spec.build(WIDTH))
    weights, _ = stack_module_state(layers)

    def answers(weights: dict[str, Tensor], x_1ND: Tensor) -> Tensor:
        return functional_call(layers[0], weights, (x_1ND, ForwardContext(x_1ND[..., 0], None, None)))

    optimizer = torch.optim.Adam(weights.values(), lr=RATE)
    draw, rows = torch.Generator().manual_seed(0), []
    for step in range(STEPS + 1):
        x_1ND = torch.randn(1, POINTS, WIDTH, generator=draw)
        y_SND = vmap(answers, in_dims=(0, None))(weights, x_1ND)[:, 0]
        error_S = (y_SND - x_1ND * x_1ND.roll(-1, dims=-1)).square().mean(dim=(1, 2))
        rows.append(error_S.detach())
        optimizer.zero_grad()
        error_S.sum().backward()
        for group in optimizer.param_groups:
            group["lr"] = RATE * (1 - step / (STEPS + 1))
        optimizer.step()
    return torch.stack(rows)


def check(trial: Trial) -> None:
    counts = [parameter_count(spec.build(WIDTH)) for spec in (GATED, PLAIN)]
    trial.oracle("both layers have as many weights", counts[0] == counts[1], f"{counts[0]} and {counts[1]}")
    llama = preset("llama-2-7b").block(0).feedforward
    agrees = isinstance(llama, GatedMLPSpec) and llama.d_ff == 11008
    trial.oracle("Llama-2 7B as it is published has that width", agrees, str(llama))
    layer, x_1ND = GATED.build(WIDTH), torch.randn(1, 5, WIDTH, generator=torch.Generator().manual_seed(0))
    both = nn.Linear(WIDTH, 24, bias=False)
    both.weight.data = torch.cat([layer.up.weight, layer.gate.weight]).detach()
    up, gate = both(x_1ND).chunk(2, dim=-1)
    theirs = layer.down(F.glu(torch.cat([gate * up, gate], dim=-1), dim=-1))  # a · σ(b) with a = gate · up, b = gate
    worst = float((layer(x_1ND, ForwardContext(x_1ND[..., 0], None, None)) - theirs).abs().max())
    trial.oracle("torch's gated linear unit gives the same", worst < 1e-6, f"largest difference {worst:.1e}")
