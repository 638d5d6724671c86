"""Karpathy 2022: what 33 years of recipes add to the network of 1989."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.digits import digits, framed
from underhood.models.lenet import LeNet
from underhood.train.image_trainer import ImageTrainer, error

PUBLISHED = {"1989": 82, "cross-entropy": 87, "AdamW": 72, "shifts": 43, "dropout, ReLU": 32}  # of 2,007


def run(trial: Trial) -> None:
    steps = recipes(trial)
    if not trial.wants("shifts"):
        steps = {name: steps[name] for name in ("1989", "dropout, ReLU")}
    errors: dict[str, list[float]] = {name: [] for name in steps}
    for seed in trial.each_seed():
        train, test = digits(seed)
        few = train.at(slice(0, trial.by_scale(smoke=400, report=len(train))))
        for name, how in trial.each(tuple(steps.items()), "step"):
            torch.manual_seed(seed)
            last = name == "dropout, ReLU" and not trial.ablated("recipes")
            net = LeNet(act=nn.ReLU(), dropout=0.25) if last else LeNet()
            errors[name].append(error(how(net, framed(few, 16), trial.progress), *framed(test, 16)))
        now = {name: max(wrong[-1], 0.5 / len(test)) for name, wrong in errors.items()}  # half a picture for none
        trial.measure("ladder", now["dropout, ReLU"] / now["1989"])
        if trial.wants("shifts"):
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
    means = {name: float(np.mean(wrong)) for name, wrong in errors.items()}
    places = tuple(map(float, range(len(means))))
    base = max(means["1989"], 1e-9)
    trial.plot(
        title="33 years of recipes on one architecture",
        x="added",
        y="errors over those of 1989",
        names=tuple(means),
        kind="bars",
        series=(
            Series("here", places, tuple(mean / base for mean in means.values())),
            Series("Karpathy", places, tuple(PUBLISHED[name] / 82 for name in means), paper=True),
        ),
    )
    rows = tuple((name, f"{m:.2%}", f"{min(errors[name]):.2%} to {max(errors[name]):.2%}") for name, m in means.items())
    trial.table(title="New digits wrong", head=("with", "mean", "over seeds"), rows=rows)
