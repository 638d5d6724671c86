"""Krizhevsky, Sutskever & Hinton 2012: AlexNet, and which of its ideas can be seen on small digits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from underhood.core.figures import Grid, Plot, Series
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
)
from underhood.core.trial import Trial
from underhood.data.digits import digits, framed
from underhood.models.alexnet import AlexNet, LocalResponse
from underhood.train.image_trainer import Data, ImageTrainer, error

Errors = dict[str, list[float]]
NULLS = ("relu",)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)

MILESTONE = Milestone(
    stem="p2012_alexnet",
    topics=("alexnet-arch", "alexnet-relu", "alexnet-reg", "alexnet-lrn-pool"),
    title="AlexNet: deep networks win",
    year=2012,
    question="Why did deep networks suddenly work in 2012?",
    asks=(
        "why ReLU instead of tanh?",
        "what is dropout?",
        "what is data augmentation?",
    ),
    papers=(
        Paper(
            authors="A. Krizhevsky, I. Sutskever, G. E. Hinton",
            year=2012,
            title="ImageNet classification with deep convolutional neural networks",
            link="https://doi.org/10.1145/3065386",
        ),
    ),
    idea=r"""
Five convolutions and three full layers, 61 million weights, trained for six days on two graphics cards: AlexNet made
15.3 % errors where the second best made 26.2 %. Little in it was new; the paper's sections say what made it possible.

*ReLU.* tanh flattens out: a unit that is far up or down passes back hardly any gradient. $\max(0, x)$ passes it all or
nothing. The paper's four-layer net reached 25 % training error six times faster.

*Against overfitting.* Pictures are shifted and mirrored whenever they are shown. And *dropout* switches off half of the
hidden units at random in every step, so that none can rely on particular others; at test time all are on, and the
outputs are scaled to what they were on average.

*Normalisation and overlapping pooling.* Each took a point or less off the error. Local response normalisation divides a
unit by the activity of its neighbours among the channels at the same place,

$$b_i = a_i \Big/ \Big(k + \alpha \sum_{j = i - n/2}^{i + n/2} a_j^2\Big)^{\beta}$$

Nobody uses it today. An effect of a point needs thousands of test pictures; here it is expected to drown in the noise,
and *not measurable* is the honest verdict.
""",
    claims=(
        Claim(
            key="weights",
            statement="The network of the paper, with two groups, has 60,965,224 weights",
            judge=Exactly(60_965_224),
            paper=Printed("60 million", "verified", "abstract"),
            topic="alexnet-arch",
        ),
        Claim(
            key="side",
            statement="Its first layer gives 55 × 55 maps from pictures of 227 pixels (224 give 54)",
            judge=Exactly(55),
            paper=Printed("55 from 224", "verified", "Figure 2, section 3.5"),
            topic="alexnet-arch",
        ),
        Claim(
            key="relu",
            statement="A deep net with ReLU reaches 25 % training error in half the steps that tanh needs, or fewer",
            judge=at_least(2.0, shape=1.1, null=1.0),
            paper=Printed(6, "verified", "Figure 1, epochs"),
            topic="alexnet-relu",
        ),
        Claim(
            key="dropout",
            statement="With few pictures, dropout lowers the error on new ones",
            judge=at_least(0.002, shape=0.0, null=0.0),
            topic="alexnet-reg",
        ),
        Claim(
            key="augmentation",
            statement="With few pictures, shifting them lowers the error on new ones by a point or more",
            judge=at_least(0.01, shape=0.0, null=0.0),
            paper=Printed("substantial overfitting without", "verified", "section 4.1"),
            topic="alexnet-reg",
        ),
        Claim(
            key="formula",
            statement="Response normalisation computes what torch computes for n α (largest difference)",
            judge=Exactly(0.0, within=1e-6),
            middle="max",
            topic="alexnet-lrn-pool",
        ),
        Claim(
            key="normalisation",
            statement="Response normalisation lowers the error (expected here: too small to measure)",
            judge=at_least(0.002, shape=0.0, null=0.0),
            paper=Printed(0.014, "verified", "section 3.3, top-1"),
            topic="alexnet-lrn-pool",
            scale="report",
        ),
        Claim(
            key="pooling",
            statement="Pooling windows that overlap lower the error (expected here: too small to measure)",
            judge=at_least(0.002, shape=0.0, null=0.0),
            paper=Printed(0.004, "verified", "section 3.4, top-1"),
            topic="alexnet-lrn-pool",
            scale="report",
        ),
    ),
    ablations=(
        Ablation("relu", "the fast net has tanh as well", ("relu",)),
        Ablation("noise", "nothing is dropped and nothing is shifted", ("dropout", "augmentation")),
        Ablation("groups", "both graphics cards see everything", ("weights",)),
    ),
    minutes=Minutes(read=8, smoke=0.5, report=4.5),
    seeds=Seeds(smoke=2, report=6),
    code=("underhood.models.alexnet:AlexNet.forward", "underhood.models.alexnet:LocalResponse.forward"),
    hard="""
Digits of 8 × 8 are learnt within an epoch, so steps are counted, every net with the best of several rates. ReLU is
not faster on them: tanh needs a third of the steps from torch's usual initial weights, and a fifth if each net has
weights made for its squash. Pictures learnt in tens of steps do not drive units into saturation. The effects against
overfitting need few pictures: 300. The paper's colour augmentation has no meaning for grey pictures.
""",
    errata=(
        "The paper's 224 × 224 pictures do not give its 55 × 55 maps with windows of 11 and a stride of 4: 227 do.",
        "The variant in torchvision has 61,100,840 weights; without groups the paper's net would have 62,378,344.",
    ),
    then="What did it: data, hardware or gradients for free? three-factors.",
)


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
                act = nn.Tanh if name == "tanh" or trial.ablated("relu") else nn.ReLU
                counted[name].append([steps(act, train, seed, rate, most) for rate in trial.each(rates, "rate")])
            best = {name: min(found[-1]) for name, found in counted.items()}
            trial.measure("relu", best["tanh"] / best["ReLU"])
        if trial.wants("dropout", "augmentation"):
            few = (train[0][:300], train[1][:300])
            on = not trial.ablated("noise")
            passes = trial.by_scale(smoke=20, report=60)
            for name, drop, shifts in (("plain", 0.0, False), ("dropout", 0.5 * on, False), ("shifts", 0.0, on)):
                how = ImageTrainer(passes=passes, batch=25, lr=1e-3, adam=True, shifts=shifts)
                found = learn(trial, lambda drop=drop: dense(drop), how, few, test, seed)
                errors.setdefault(name, []).append(found)
            trial.measure("dropout", errors["plain"][-1] - errors["dropout"][-1])
            trial.measure("augmentation", errors["plain"][-1] - errors["shifts"][-1])
        if trial.wants("normalisation"):
            how = ImageTrainer(passes=15, batch=16, lr=2e-3, adam=True)
            for name, norm, window in (("net", False, 3), ("normalised", True, 3), ("apart", False, 2)):
                found = learn(trial, lambda norm=norm, window=window: pooled(norm, window), how, train, test, seed)
                errors.setdefault(name, []).append(found)
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
    trial.figure(
        Plot(
            title="ReLU learns faster, at every rate that learns",
            x="rate",
            y="steps to 25 % training error",
            log_x=True,
            log_y=True,
            series=tuple(
                Series(name, rates, tuple(np.median(f, axis=0)), tuple(np.min(f, axis=0)), tuple(np.max(f, axis=0)))
                for name, f in counted.items()
            ),
        )
    )
    rows = tuple((name, f"{np.mean(e):.2%}", f"{min(e):.2%} to {max(e):.2%}") for name, e in errors.items())
    trial.figure(Grid(title="New digits wrong", head=("net", "mean", "over seeds"), rows=rows))
