"""Karpathy 2022: what 33 years of recipes add to the network of 1989."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from underhood.core.figures import Grid, Plot, Series
from underhood.core.milestone import (
    Ablation,
    Claim,
    Milestone,
    Minutes,
    Paper,
    Printed,
    Seeds,
    at_least,
    at_most,
)
from underhood.core.trial import Trial
from underhood.data.digits import digits, framed
from underhood.models.lenet import LeNet
from underhood.train.image_trainer import ImageTrainer, error

PUBLISHED = {"1989": 82, "cross-entropy": 87, "AdamW": 72, "shifts": 43, "dropout, ReLU": 32}  # of 2,007

MILESTONE = Milestone(
    stem="p2022_time_travel",
    topics=("lecun-timetravel",),
    title="Time travel: the network of 1989 with today's recipes",
    year=2022,
    question="What has become better in training since 1989, if the network stays the same?",
    asks=("what do AdamW, augmentation and dropout bring?", "how much of progress is the architecture?"),
    papers=(
        Paper(
            authors="A. Karpathy",
            year=2022,
            title="Deep neural nets: 33 years ago and 33 years from now",
            link="https://karpathy.github.io/2022/03/14/lecun1989/",
        ),
    ),
    idea=r"""
Karpathy built LeNet again from the paper of 1989 and then let it travel in time. He changed one thing after the other,
keeping those before: softmax with cross-entropy in place of squared error; AdamW in place of plain gradient descent,
with a falling rate; *augmentation*, each picture shifted by up to a pixel whenever it is shown; *dropout*, a quarter of
the features before the hidden layer switched off at random in every step, together with $\max(0, x)$ in place of tanh.

The architecture did not change, and the errors fell by more than half. Two things are worth noticing. The first step
did not help at all: a better loss alone just fits the training pictures faster. And the largest steps are those against
overfitting: a net that can learn its 7,291 pictures by heart needs reasons not to.

With ten times the data the errors fell further. So the recipe was: a better loss and optimiser to fit whatever one
likes, then every means to keep it from fitting too well, then more data.
""",
    claims=(
        Claim(
            key="ladder",
            statement="The recipes since 1989 leave at most 60 % of its errors, at the same number of weights",
            judge=at_most(0.6, shape=0.9, null=1.0),
            paper=Printed(round(32 / 82, 2), "verified", "82 → 32 misses"),
        ),
        Claim(
            key="shifts",
            statement="Shifting pictures by a pixel takes away a fifth of the errors or more",
            judge=at_most(0.8, shape=0.95, null=1.0),
            paper=Printed(round(43 / 72, 2), "verified", "72 → 43 misses"),
        ),
        Claim(
            key="entropy_alone",
            statement="Cross-entropy alone does not help this net",
            judge=at_least(0.9),
            paper=Printed(round(87 / 82, 2), "verified", "82 → 87 misses"),
            scale="report",
            aside=True,
        ),
    ),
    ablations=(Ablation("recipes", "every step trains as in 1989", ("ladder", "shifts")),),
    minutes=Minutes(read=4, smoke=0.5, report=4),
    seeds=Seeds(smoke=1, report=4),
    code=("underhood.train.image_trainer:shifted", "underhood.train.image_trainer:ImageTrainer.__call__"),
    hard="""
Steps take four pictures before AdamW and sixteen from there on, at rates scaled to match; the original takes one,
which would take an hour here. Errors are so few (a step of one test picture is 0.28 %) that only several seeds
together tell anything.
""",
    then="The same means on a deep network: alexnet-reg.",
)


def run(trial: Trial) -> None:
    errors: dict[str, list[float]] = {name: [] for name in PUBLISHED}
    for seed in trial.each_seed():
        train, test = digits(seed)
        few = train.at(slice(0, trial.by_scale(smoke=400, report=len(train))))
        for name, how in trial.each(tuple(recipes(trial).items()), "step"):
            torch.manual_seed(seed)
            last = name == "dropout, ReLU" and not trial.ablated("recipes")
            net = LeNet(act=nn.ReLU(), dropout=0.25) if last else LeNet()
            errors[name].append(error(how(net, framed(few, 16), trial.progress), *framed(test, 16)))
        now = {name: max(found[-1], 0.5 / len(test)) for name, found in errors.items()}  # half a picture for none
        trial.measure("ladder", now["dropout, ReLU"] / now["1989"])
        trial.measure("shifts", now["shifts"] / now["AdamW"])
        trial.measure("entropy_alone", now["cross-entropy"] / now["1989"])
    show(trial, errors)


def recipes(trial: Trial) -> dict[str, ImageTrainer]:
    """The steps of 33 years, each with what came before; smoke scale takes larger batches and fewer passes."""
    batch, less = trial.by_scale(smoke=(8, 3), report=(4, 1))
    first = ImageTrainer(passes=23 // less, batch=batch, lr=0.03 * batch**0.5, squared=True)
    if trial.ablated("recipes"):
        return dict.fromkeys(PUBLISHED, first)

    def adam(passes: int, shifts: bool = False) -> ImageTrainer:
        return ImageTrainer(
            passes=passes // trial.by_scale(smoke=2, report=1), batch=16, lr=1.2e-3, adam=True, shifts=shifts
        )

    entropy = ImageTrainer(passes=23 // less, batch=batch, lr=0.01 * batch**0.5)
    return dict(zip(PUBLISHED, (first, entropy, adam(30), adam(40, True), adam(60, True)), strict=True))


def show(trial: Trial, errors: dict[str, list[float]]) -> None:
    means = {name: float(np.mean(found)) for name, found in errors.items()}
    places = tuple(map(float, range(len(means))))
    base = max(means["1989"], 1e-9)
    trial.figure(
        Plot(
            title="33 years of recipes on one architecture",
            x="added",
            y="errors over those of 1989",
            names=tuple(means),
            kind="bars",
            series=(
                Series("here", places, tuple(mean / base for mean in means.values())),
                Series("Karpathy", places, tuple(n / 82 for n in PUBLISHED.values()), paper=True),
            ),
        )
    )
    rows = tuple((name, f"{m:.2%}", f"{min(errors[name]):.2%} to {max(errors[name]):.2%}") for name, m in means.items())
    trial.figure(Grid(title="New digits wrong", head=("with", "mean", "over seeds"), rows=rows))
