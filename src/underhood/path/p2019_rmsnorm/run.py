"""Zhang and Sennrich 2019: LayerNorm without the mean, compared for quality, time and what it ignores."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.nn.norm import LayerNormSpec, NormSpec, RMSNormSpec
from underhood.path.lib.letter_models import MIDDLES, by_eight, letter_model, loss_by_position, trained

ROWS, WIDTH, EPS = 1024, 256, 1e-5


@dataclass(frozen=True, kw_only=True)
class GainSpec:
    """The ablation: a norm that only multiplies by its learnt gain."""

    def build(self, d_model: int) -> Gain:
        return Gain(d_model)


class Gain(nn.Module):
    def __init__(self, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def run(trial: Trial) -> None:
    curves: dict[str, list[Tensor]] = {"LayerNorm": [], "RMSNorm": []}
    fused = []
    norm: NormSpec = GainSpec() if trial.ablated("division") else RMSNormSpec(eps=EPS)
    for seed in trial.each_seed():
        generator = torch.Generator().manual_seed(seed)
        x_ND = torch.randn(ROWS, WIDTH, generator=generator)
        layer = norm.build(WIDTH)
        trial.measure("scale", float((layer(1000 * x_ND) - layer(x_ND)).abs().max()))
        for name, spec in trial.each({"LayerNorm": LayerNormSpec(), "RMSNorm": norm}.items(), "norm"):
            curves[name].append(letter_loss(trial, spec, seed))
        trial.measure("loss", float((curves["RMSNorm"][-1] - curves["LayerNorm"][-1]).mean()))
        if not trial.is_ablation and trial.wants("time"):
            x_ND.requires_grad_()
            trial.measure("time", time_ratio(written_rms_norm, written_layer_norm, x_ND))
            fused.append(time_ratio(RMSNormSpec().build(WIDTH), nn.LayerNorm(WIDTH), x_ND))
    if fused:
        trial.note(f"With fused kernels for both, RMSNorm takes {np.median(fused):.2f} times as long as LayerNorm.")
    if not trial.is_ablation:
        check_torch(trial)
        trial.plot(
            title="Two norms, one curve",
            x="letters read before",
            y="nats per letter",
            series=[Series(name, MIDDLES, by_eight(rows)) for name, rows in curves.items()],
            note="Means over eight letters.",
        )


def letter_loss(trial: Trial, norm: NormSpec, seed: int) -> Tensor:
    """Held-out nats by position of a small model with this norm."""
    d_model, layers, steps, batch = trial.by_scale(smoke=(32, 1, 50, 8), report=(64, 2, 150, 8))
    spec = letter_model(norm=norm, d_model=d_model, layers=layers)
    return loss_by_position(trained(spec, seed=seed, steps=steps, batch=batch, tell=trial.progress))


def written_rms_norm(x_ND: Tensor) -> Tensor:
    return x_ND * (x_ND.square().mean(dim=-1, keepdim=True) + EPS).rsqrt()


def written_layer_norm(x_ND: Tensor) -> Tensor:
    centred_ND = x_ND - x_ND.mean(dim=-1, keepdim=True)
    return centred_ND * (centred_ND.square().mean(dim=-1, keepdim=True) + EPS).rsqrt()


def time_ratio(norm: Callable[[Tensor], Tensor], other: Callable[[Tensor], Tensor], x_ND: Tensor) -> float:
    """Median over pairs of runs in turn, forwards and backwards: other work on the machine slows both of a pair."""
    ratios = []
    for _ in range(200):
        seconds = []
        for function in (norm, other):
            start = time.perf_counter()
            function(x_ND).backward(x_ND.detach())
            seconds.append(time.perf_counter() - start)
        ratios.append(seconds[0] / seconds[1])
    return float(np.median(ratios))


def check_torch(trial: Trial) -> None:
    x_ND = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours, theirs = RMSNormSpec(eps=EPS).build(WIDTH).double(), nn.RMSNorm(WIDTH, eps=EPS, dtype=torch.float64)
    with torch.no_grad():
        ours.weight.normal_()
        theirs.weight.copy_(ours.weight)
    worst = float((ours(x_ND) - theirs(x_ND)).abs().max())
    trial.oracle("torch.nn.RMSNorm gives the same", worst < 1e-12, f"largest difference {worst:.1e}")
    without_mean_ND = x_ND - x_ND.mean(dim=-1, keepdim=True)
    layer = nn.LayerNorm(WIDTH, eps=EPS, dtype=torch.float64)
    worst = float((written_rms_norm(without_mean_ND) - layer(x_ND)).abs().max())
    trial.oracle("of a vector with mean zero it is LayerNorm", worst < 1e-12, f"largest difference {worst:.1e}")
