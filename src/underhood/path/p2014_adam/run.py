"""Kingma & Ba 2014: steps of equal size for every weight, however large its gradients are."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.zipf import zipf_pairs
from underhood.train.classic_optimizers import SGD, Adagrad, AdamW, RMSprop, Rule

Build = Callable[[list[nn.Parameter]], Rule]


def run(trial: Trial) -> None:
    trial.measure("parity", max(parity().values()))
    adam: Build = partial(without(trial), eps=0.0)
    apart = {scale: float((path(adam, scale) - path(adam, 1.0)).abs().max()) for scale in (1e3, 1e-3, 2.0**20)}
    trial.measure("scale", max(apart.values()))
    trial.oracle("a loss times 2²⁰ takes the same path, bit for bit", trial.ablated("square") or apart[2.0**20] == 0)
    trial.measure("epsilon", float((path(without(trial), 1e-8) - path(without(trial), 1.0)).abs().max()))
    for g in (1e-3, 1.0, 1e3):
        trial.measure("first", first_step(partial(without(trial), eps=1e-12), g))
    trial.measure("decoupled", decayed(trial.ablated("decoupling")))
    curves = {}
    for seed in trial.each_seed():
        if trial.wants("zipf"):
            steps, curves = race(trial, seed)
            trial.measure("zipf", steps)
    show(trial, curves)


def without(trial: Trial) -> Callable[..., Rule]:
    """Adam, or Adam without the ablated idea."""

    def build(params: list[nn.Parameter], *, lr: float = 0.01, eps: float = 1e-8) -> Rule:
        if trial.ablated("square"):
            return SGD(params, lr=lr, momentum=0.9)
        correction = not trial.ablated("correction")
        return AdamW(params, lr=lr, betas=(0.9, 0.999), eps=eps, bias_correction=correction)

    return build


BETAS = {"lr": 0.01, "betas": (0.9, 0.999)}
PAIRS: tuple[tuple[str, Callable[..., Rule], Callable[..., torch.optim.Optimizer], dict[str, Any]], ...] = (
    ("SGD", SGD, torch.optim.SGD, {"lr": 0.1}),
    ("momentum", SGD, torch.optim.SGD, {"lr": 0.1, "momentum": 0.9}),
    ("Adagrad", Adagrad, torch.optim.Adagrad, {"lr": 0.1}),
    ("RMSprop", RMSprop, torch.optim.RMSprop, {"lr": 0.01}),
    ("Adam", AdamW, torch.optim.Adam, BETAS),
    ("AdamW", AdamW, torch.optim.AdamW, {**BETAS, "weight_decay": 0.1}),
)


def parity() -> dict[str, float]:
    """The largest difference from torch.optim after 100 steps on random gradients, for each optimiser."""
    differences = {}
    for name, ours_of, theirs_of, options in PAIRS:
        ours, theirs = (nn.Parameter(torch.linspace(-2, 2, 12, dtype=torch.float64)) for _ in range(2))
        rule, oracle = ours_of([ours], **options), theirs_of([theirs], **options)
        for step in range(100):
            generator = torch.Generator().manual_seed(step)
            g = torch.randn(12, generator=generator, dtype=torch.float64) * 10 ** (step % 5 - 2)
            ours.grad, theirs.grad = g, g.clone()
            rule.step()
            oracle.step()
        differences[name] = float((ours - theirs).detach().abs().max())
    return differences


def path(build: Build, scale: float) -> Tensor:
    """100 steps in a valley whose loss is multiplied by `scale`, (100, 4)."""
    curvature = torch.logspace(0, 3, 4, dtype=torch.float64)
    p = nn.Parameter(torch.ones(4, dtype=torch.float64))
    rule, seen = build([p]), []
    for _ in range(100):
        p.grad = scale * (curvature * p.detach())
        rule.step()
        seen.append(p.detach().clone())
    return torch.stack(seen)


def first_step(build: Build, g: float) -> float:
    p = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    p.grad = torch.full_like(p, g)
    build([p]).step()
    return -float(p.detach()) / 0.01


def decayed(inside: bool) -> float:
    """What the decay takes from a weight with small gradients (±0.01), over that of one with large ones (±10)."""
    p = nn.Parameter(torch.ones(2, dtype=torch.float64))
    rule = AdamW([p], lr=1e-2, betas=(0.9, 0.999), weight_decay=0.0 if inside else 0.1)
    seen = []
    for step in range(400):
        p.grad = torch.tensor([0.01, 10.0], dtype=torch.float64) * (-1) ** step + (0.1 * p.detach() if inside else 0)
        rule.step()
        seen.append(p.detach().clone())
    lost = 1 - torch.stack(seen)[-100:].mean(0)
    return float(lost[0] / lost[1])


def race(trial: Trial, seed: int) -> tuple[float, dict[str, list[float]]]:
    """Adam's steps to the best loss that SGD ends at, as a share of SGD's; and the best run of each."""
    steps, words = trial.by_scale(smoke=(100, 100), report=(600, 500))
    first, second, shares = zipf_pairs(words, (steps, 256), np.random.default_rng(seed))
    truth = torch.from_numpy(shares).float()

    def run(build: Build) -> list[float]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Embedding(words, 32), nn.Linear(32, words))
        nn.init.normal_(model[0].weight, std=0.1)  # type: ignore[arg-type]
        rule, losses = build(list(model.parameters())), []
        for a, b in zip(torch.from_numpy(first), torch.from_numpy(second), strict=True):
            model.zero_grad()
            F.cross_entropy(model(a), b).backward()
            rule.step()
            with torch.no_grad():  # the loss on all pairs there are, not on a sample
                losses.append(float(-(model(torch.arange(words)).log_softmax(-1) * truth).sum()))
        return losses

    rates = {
        "SGD": (0.3, 1.0, 3.0, 10.0),
        "Adam": (0.3, 1.0, 3.0, 10.0) if trial.ablated("square") else (0.003, 0.01, 0.03, 0.1),
    }
    builds = {"SGD": partial(SGD, momentum=0.9), "Adam": without(trial)}
    tried = {name: grid[trial.by_scale(smoke=1, report=0) :] for name, grid in rates.items()}
    runs = {name: [run(partial(builds[name], lr=lr)) for lr in trial.each(grid, name)] for name, grid in tried.items()}
    best = min((losses for losses in runs["SGD"] if np.isfinite(losses[-1])), key=lambda losses: losses[-1])
    reached = [
        next((step for step, loss in enumerate(losses, 1) if loss <= best[-1]), np.inf) for losses in runs["Adam"]
    ]
    return min(reached) / steps, {"SGD with momentum": best, "Adam": runs["Adam"][int(np.argmin(reached))]}


def show(trial: Trial, curves: dict[str, list[float]]) -> None:
    trial.plot(
        title="Rare words learn too",
        x="steps",
        y="loss on all pairs, nats",
        series=tuple(
            Series(name, tuple(map(float, range(1, len(losses) + 1))), tuple(losses)) for name, losses in curves.items()
        ),
    )
