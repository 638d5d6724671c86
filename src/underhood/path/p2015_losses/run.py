"""Losses and activations: why cross-entropy learns from confident mistakes, and squared error does not."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.digits import digits

WRONG = (2, 4, 6, 8, 10)
SQUARED_STEPS = (16, 71, 426, 3011, 22063)


def run(trial: Trial) -> None:
    entropy = not trial.ablated("entropy")
    z = torch.randn(50, 10, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = torch.arange(50) % 10
    F.cross_entropy(z, y, reduction="sum").backward()
    assert z.grad is not None
    trial.measure("slope", float((slope(z.detach(), F.one_hot(y, 10).double(), entropy) - z.grad).abs().max()))
    trial.measure("steps_entropy", sum(abs(steps(z0, entropy) - (z0 + 1)) for z0 in WRONG))
    counted = [steps(z0, False) for z0 in WRONG]
    trial.measure("steps_squared", sum(abs(n - m) for n, m in zip(counted, SQUARED_STEPS, strict=True)))
    trial.measure("nielsen_squared", nielsen(False)[0])
    trial.measure("nielsen_entropy", nielsen(entropy)[0])
    x = torch.linspace(-8, 8, 100_001, dtype=torch.float64)
    trial.measure("gelu", float((F.gelu(x) - F.gelu(x, approximate="tanh")).abs().max()))
    exact = 0.5 * x * (1 + torch.erf(x / math.sqrt(2)))
    trial.oracle("GELU by the error function", torch.allclose(F.gelu(x), exact, atol=1e-12))
    curves: dict[bool, list[float]] = {}
    for seed in trial.each_seed():
        needed = {}
        for loss in (True, False):
            needed[loss], curve = learn_digits(seed, loss and entropy)
            curves.setdefault(loss, curve)
        trial.measure("digits", needed[False] / needed[True])
    show(trial, curves)


def slope(z: Tensor, y: Tensor, entropy: bool) -> Tensor:
    """dL/dz of softmax probabilities p against one-hot y: p − y, or what squared error makes of it."""
    p = z.softmax(-1)
    if entropy:
        return p - y
    pull = (p - y) * p  # the softmax passes on each error times p, less its share of all of them
    return pull - p * pull.sum(-1, keepdim=True)


def steps(wrong: float, entropy: bool) -> int:
    """Steps of rate 1 until one sigmoid unit with target 1 gets from logit −wrong past one half."""
    z, count = -float(wrong), 0
    while z <= 0:
        p = 1 / (1 + math.exp(-z))
        z -= (p - 1) * (1 if entropy else p * (1 - p))
        count += 1
    return count


def nielsen(entropy: bool) -> tuple[int, list[float]]:
    """Sweeps until the output of w = b = 2 for input 1 and target 0 falls below one half, and all outputs."""
    w, b, outputs = 2.0, 2.0, []
    for _ in range(400):
        a = 1 / (1 + math.exp(-(w + b)))
        outputs.append(a)
        pull = 0.15 * a * (1 if entropy else a * (1 - a))
        w, b = w - pull, b - pull
    return next(sweep for sweep, a in enumerate(outputs) if a < 0.5), outputs


def learn_digits(seed: int, entropy: bool, rate: float = 1.0, most: int = 4000) -> tuple[int, list[float]]:
    """Steps until a net of 64-32-10 that starts out certain of the digit 0 has 90 % of its pictures right."""
    train, _ = digits(seed)
    torch.manual_seed(seed)
    last = nn.Linear(32, 10)
    net = nn.Sequential(nn.Linear(64, 32), nn.Tanh(), last)
    with torch.no_grad():
        last.bias[0] = 6.0
    x, y = torch.from_numpy(train.x).flatten(1), torch.from_numpy(train.y)
    target = F.one_hot(y, 10).float()
    optimiser = torch.optim.SGD(net.parameters(), lr=rate)
    curve = []
    for step in range(most):
        z = net(x)
        curve.append(float((z.argmax(-1) == y).float().mean()))
        if curve[-1] >= 0.9:
            return step, curve
        optimiser.zero_grad()
        z.backward(slope(z.detach(), target, entropy) / len(y))
        optimiser.step()
    return most, curve


def show(trial: Trial, curves: dict[bool, list[float]]) -> None:
    names = {True: "cross-entropy", False: "squared error"}
    z = np.linspace(-10, 10, 81)
    p = 1 / (1 + np.exp(-z))
    pulls = {True: 1 - p, False: (1 - p) * p * (1 - p)}
    places = tuple(map(float, z))
    trial.plot(
        title="How hard a unit is pulled towards yes",
        x="logit z (left: certain of no)",
        y="slope of the loss",
        series=tuple(Series(names[loss], places, tuple(map(float, pull))) for loss, pull in pulls.items()),
    )
    trial.plot(
        title="Nielsen's neuron unlearns a certain yes",
        x="sweep",
        y="output",
        series=tuple(
            Series(names[loss], tuple(map(float, range(400))), tuple(nielsen(loss)[1])) for loss in (True, False)
        ),
    )
    trial.plot(
        title="A net that starts out certain of one digit",
        x="steps",
        y="training pictures right",
        log_x=True,
        series=tuple(
            Series(names[loss], tuple(map(float, range(1, len(curve) + 1))), tuple(curve))
            for loss, curve in curves.items()
        ),
    )
