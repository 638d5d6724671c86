"""Losses and activations: why cross-entropy learns from confident mistakes, and squared error does not."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underhood.core.figures import Plot, Series
from underhood.core.milestone import (
    Ablation,
    Claim,
    Exactly,
    Milestone,
    Minutes,
    Paper,
    Printed,
    Seeds,
    at_least,
    at_most,
)
from underhood.core.trial import Trial
from underhood.data.digits import digits

WRONG = (2, 4, 6, 8, 10)
SQUARED_STEPS = (16, 71, 426, 3011, 22063)

MILESTONE = Milestone(
    stem="p2015_losses",
    topics=("losses-activations",),
    title="Losses: learning from being confidently wrong",
    year=2015,
    question="Why do classifiers and language models train with cross-entropy?",
    asks=(
        "what is a loss function?",
        "why softmax and cross-entropy?",
        "what is a saturated neuron?",
        "what is GELU?",
    ),
    papers=(
        Paper(
            authors="M. Nielsen",
            year=2015,
            title="Neural networks and deep learning, chapter 3",
            link="http://neuralnetworksanddeeplearning.com/chap3.html",
        ),
        Paper(
            authors="D. Hendrycks, K. Gimpel",
            year=2016,
            title="Gaussian error linear units",
            link="https://arxiv.org/abs/1606.08415",
        ),
    ),
    idea=r"""
A network's last step turns numbers $z$ (logits) into probabilities: $p = \sigma(z)$ for yes or no, softmax for many
classes. The loss says how bad they are, and its slope is all that the network ever learns from. With the squared error
$\tfrac12 (p-y)^2$ that slope is

$$\frac{\partial}{\partial z}\,\tfrac12 (p-y)^2 = (p-y)\,p\,(1-p)$$

The last factors come from the sigmoid, and they vanish where $p$ is near 0 or 1. So whoever is *certain* and wrong
learns nothing at all. Cross-entropy, $-\log p_y$, cancels exactly these factors:

$$\frac{\partial}{\partial z}\left(-\log p_y\right) = p - y$$

The worse the mistake, the stronger the pull. From a logit of $z_0$ on the wrong side, one unit needs about $z_0 + 1$
steps to change its mind with cross-entropy and about $e^{z_0}$ with squared error. It is also the loss that maximum
likelihood asks for; a language model's loss is nothing else.
""",
    claims=(
        Claim(
            key="slope",
            statement="The slopes of softmax with cross-entropy are p − y (largest difference from torch, float64)",
            judge=Exactly(0.0, within=1e-12),
            middle="max",
        ),
        Claim(
            key="steps_entropy",
            statement="From a logit of 2, 4, 6, 8, 10 on the wrong side, cross-entropy needs one step more than that",
            judge=Exactly(0),
            unit="steps off",
        ),
        Claim(
            key="steps_squared",
            statement="Squared error needs 16, 71, 426, 3,011 and 22,063 steps",
            judge=Exactly(0),
            unit="steps off",
        ),
        Claim(
            key="nielsen_squared",
            statement="Nielsen's neuron (w = b = 2, rate 0.15) passes one half in sweep 232 with squared error",
            judge=Exactly(232),
            paper=Printed("hardly moves for 150", "verified", "chapter 3"),
        ),
        Claim(
            key="nielsen_entropy",
            statement="The same neuron passes one half in sweep 17 with cross-entropy",
            judge=Exactly(17),
        ),
        Claim(
            key="digits",
            statement="A network that starts out certain of one wrong digit needs twice the steps with squared error",
            judge=at_least(2.0, shape=1.3, null=1.0),
        ),
        Claim(
            key="gelu",
            statement="GPT-2's tanh form of GELU stays within 0.0005 of x Φ(x)",
            judge=at_most(0.0005),
        ),
    ),
    ablations=(
        Ablation(
            "entropy",
            "squared error stands where cross-entropy stood",
            ("slope", "steps_entropy", "nielsen_entropy", "digits"),
        ),
    ),
    minutes=Minutes(read=6, smoke=0.1, report=0.3),
    seeds=Seeds(smoke=3, report=10),
    code=("underhood.path.p2015_losses:slope",),
    hard="""
Both losses get the same rate in the digits comparison, and the count stops at 90 % of the training pictures. Squared
error is that of the probabilities with the one-hot label, as in the equations above.
""",
    then="The slope p − y now has to reach the layers below: backprop-1986.",
)


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
    trial.figure(
        Plot(
            title="How hard a unit is pulled towards yes",
            x="logit z (left: certain of no)",
            y="slope of the loss",
            series=tuple(Series(names[loss], places, tuple(map(float, pull))) for loss, pull in pulls.items()),
        )
    )
    trial.figure(
        Plot(
            title="Nielsen's neuron unlearns a certain yes",
            x="sweep",
            y="output",
            series=tuple(
                Series(names[loss], tuple(map(float, range(400))), tuple(nielsen(loss)[1])) for loss in (True, False)
            ),
        )
    )
    trial.figure(
        Plot(
            title="A net that starts out certain of one digit",
            x="steps",
            y="training pictures right",
            log_x=True,
            series=tuple(
                Series(names[loss], tuple(map(float, range(1, len(curve) + 1))), tuple(curve))
                for loss, curve in curves.items()
            ),
        )
    )
