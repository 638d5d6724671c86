"""Reward–KL frontier: each method's gold reward against its distance from the same start, as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from underhood.core.figures import Series
from underhood.models.decoder import Decoder
from underhood.path.lib.gold_policies import FrontierPoint, Watch

Curves = dict[str, list[FrontierPoint]]

PAIR_LOSSES = {"DPO": "dpo", "preferred fine-tuning": "preferred", "unlikelihood": "unlikelihood"}
BEST_OF = (2, 4, 8, 16, 32, 64)
POINTS = 5
"""Points of a training after its start."""


@dataclass(frozen=True)
class ArmResult:
    """A method by its way and its end.

    Attributes:
        curve: from the start on.
        gold_N: expected gold reward on every held-out question, at temperature 1.
        greedy_N: gold reward of the greedy answer to it; empty where nobody measured it, as gold_N may be.
    """

    curve: list[FrontierPoint]
    gold_N: list[float]
    greedy_N: list[float]


@dataclass(frozen=True)
class ArmTraining:
    """A method's training from the start: `run` is given what to tell after each step."""

    steps: int
    run: Callable[[Watch], Decoder]


def watched(
    training: ArmTraining, measure: Callable[[Decoder], FrontierPoint], here: FrontierPoint
) -> tuple[list[FrontierPoint], Decoder]:
    """Trains, and measures the policy `POINTS` times on its way."""
    curve = [here]

    def watch(step: int, model: Decoder) -> None:
        if step and step % max(1, training.steps // POINTS) == 0:
            mode = model.training
            curve.append(measure(model))
            model.train(mode)

    return curve, training.run(watch)


def training_curves(
    trainings: Mapping[str, ArmTraining],
    measure: Callable[[Decoder], FrontierPoint],
    here: FrontierPoint,
    tell: Callable[[int, str], object] = lambda number, name: None,
) -> tuple[Curves, dict[str, Decoder]]:
    """Every method's curve and trained model.

    Args:
        here: the start.
        tell: hears how many methods are done, and the name of the next one.
    """
    curves: Curves = {}
    models: dict[str, Decoder] = {}
    for number, (name, training) in enumerate(trainings.items()):
        tell(number, name)
        curves[name], models[name] = watched(training, measure, here)
    return curves, models


def mean_curves(curves: Sequence[Curves]) -> list[Series]:
    """Gold reward against KL, both the mean over seeds."""
    series: list[Series] = []
    for name in curves[0]:
        points_PX = np.array([[(point.kl, point.gold) for point in each[name]] for each in curves]).mean(axis=0)
        series.append(Series(name, tuple(points_PX[:, 0]), tuple(points_PX[:, 1])))
    return series
