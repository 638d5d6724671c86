"""Krizhevsky, Sutskever & Hinton 2012: AlexNet, and which of its ideas can be seen on small digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.digits import digits, framed
from underhood.models.alexnet import AlexNet, LocalResponse
from underhood.train.image_trainer import Data, ImageTrainer, error

Errors = dict[str, list[float]]
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)


def run(trial: Trial) -> None:
    with torch.device("meta"):
        net, joined = AlexNet(1 if trial.ablated("groups") else 2), AlexNet(1)
        trial.measure("weights", count(net))
        trial.oracle("without groups 62,378,344", count(joined) == 62_378_344, f"{count(joined):,}")
    trial.measure("side", net.conv1.to_empty(device="cpu")(torch.zeros(1, 3, 227, 227)).shape[-1])
    a = torch.randn(2, 7, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 30
    theirs = nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)(a)
    trial.measure("formula", float((LocalResponse()(a) - theirs).abs().max()))
    counted: dict[str, list[list[float]]] = {"ReLU": [], "tanh": []}
    errors: Errors = {}
    rates, most = trial.by_scale(smoke=(RATES[1:4], 120), report=(RATES, 400))
    for seed in trial.each_seed():
        train, test = (framed(half) for half in digits(seed))
        if trial.wants("relu"):
            for name in counted:
                act = nn.Tanh if name == "tanh" else nn.ReLU
                counted[name].append([steps(act, train, seed, rate, most) for rate in trial.each(rates, "rate")])
            best = {name: min(steps_of[-1]) for name, steps_of in counted.items()}
            trial.measure("relu", best["tanh"] / best["ReLU"])
        if trial.wants("dropout", "augmentation"):
            few = (train[0][:300], train[1][:300])
            passes = trial.by_scale(smoke=20, report=60)
            for name, drop, shifts in (("plain", 0.0, False), ("dropout", 0.5, False), ("shifts", 0.0, True)):
                how = ImageTrainer(passes=passes, batch=25, lr=1e-3, adam=True, shifts=shifts)
                wrong = learn(trial, lambda drop=drop: dense(drop), how, few, test, seed)
                errors.setdefault(name, []).append(wrong)
            trial.measure("dropout", errors["plain"][-1] - errors["dropout"][-1])
            trial.measure("augmentation", errors["plain"][-1] - errors["shifts"][-1])
        if trial.wants("normalisation"):
            how = ImageTrainer(passes=15, batch=16, lr=2e-3, adam=True)
            for name, norm, window in (("net", False, 3), ("normalised", True, 3), ("apart", False, 2)):
                wrong = learn(trial, lambda norm=norm, window=window: pooled(norm, window), how, train, test, seed)
                errors.setdefault(name, []).append(wrong)
            trial.measure("normalisation", errors["net"][-1] - errors["normalised"][-1])
            trial.measure("pooling", errors["apart"][-1] - errors["net"][-1])
    if not trial.is_ablation:
        show(trial, rates, counted, errors)


def learn(trial: Trial, build: Callable[[], nn.Module], how: ImageTrainer, train: Data, test: Data, seed: int) -> float:
    torch.manual_seed(seed)
    return error(how(build(), train, trial.progress), *test)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def deep(act: type[nn.Module]) -> nn.Module:
    """Six convolutions and an output, deep enough for gradients to fade; initial weights made for the squash."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, 8, 1), (8, 8, 1), (8, 8, 2), (8, 16, 1), (16, 16, 1), (16, 16, 2)):
        conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        gain = nn.init.calculate_gain("relu" if act is nn.ReLU else "tanh")
        nn.init.xavier_normal_(conv.weight, gain)
        layers += [conv, act()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 4, 10))


def steps(act: type[nn.Module], train: Data, seed: int, rate: float, most: int) -> float:
    """Steps of plain gradient descent on batches of 32 until three quarters of 250 training pictures are right."""
    torch.manual_seed(seed)
    x, y = train
    net = deep(act)
    rule = torch.optim.SGD(net.parameters(), rate)
    for step in range(most):
        if step % 4 == 0 and error(net, x[:250], y[:250]) <= 0.25:
            return max(step, 1)
        at = torch.randint(len(y), (32,))
        loss = F.cross_entropy(net(x[at]), y[at])
        rule.zero_grad()
        loss.backward()
        rule.step()
    return most


def dense(drop: float) -> nn.Module:
    layers = [nn.Linear(64, 512), nn.ReLU(), nn.Dropout(drop), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(drop)]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(512, 10))


def pooled(norm: bool, window: int) -> nn.Module:
    """Two convolutions with pooling in steps of two; windows of three overlap, windows of two do not."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        layers += [LocalResponse()] if norm else []
        layers += [nn.MaxPool2d(window, 2, padding=window // 2 if window == 3 else 0)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4, 10))


def show(trial: Trial, rates: tuple[float, ...], counted: dict[str, list[list[float]]], errors: Errors) -> None:
    trial.plot(
        title="Steps until three quarters are learnt, at every rate",
        x="rate",
        y="steps to 25 % training error",
        log_x=True,
        log_y=True,
        series=tuple(
            Series(name, rates, tuple(np.median(f, axis=0)), tuple(np.min(f, axis=0)), tuple(np.max(f, axis=0)))
            for name, f in counted.items()
        ),
    )
    rows = tuple((name, f"{np.mean(e):.2%}", f"{min(e):.2%} to {max(e):.2%}") for name, e in errors.items())
    trial.table(title="New digits wrong", head=("net", "mean", "over seeds"), rows=rows)
