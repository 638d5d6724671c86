"""Cover 1965, MacKay 2003: a unit of K weights can memorise 2 K random answers, two bits for each weight."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.evals.separable import separable_labellings, separation

Floats = NDArray[np.float64]
SIZES = (10, 20, 50)


def run(trial: Trial) -> None:
    x = np.random.default_rng(0).standard_normal((8, 3))
    if trial.ablated("position"):
        x = x @ np.diag([1.0, 1.0, 0.0])
    trial.measure("count", sum(separation(x, np.array(y))[0] for y in product((-1.0, 1.0), repeat=8)))
    if not trial.is_ablation:
        trial.measure("half", max(abs(float(share(2 * k, k) - Fraction(1, 2))) for k in range(1, 501)))
        trial.measure("steep", float(share(900, 500) - share(1100, 500)))
    held: dict[int, list[int]] = {k: [] for k in (SIZES[:1] if trial.is_ablation else SIZES)}
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        of_seed: dict[int, NDArray[np.int64]] = {}
        for k in trial.each(list(held), "weights"):
            draws = range(trial.by_scale(smoke={10: 400, 20: 60, 50: 2}, report={10: 200, 20: 100, 50: 16})[k])
            of_seed[k] = np.array([holds(trial, k, rng) for _ in draws])
            held[k] += of_seed[k].tolist()
        trial.measure("learnt", np.concatenate([counts >= 2 * k for k, counts in of_seed.items()]).mean())
        trial.measure("bits", np.concatenate([counts / k for k, counts in of_seed.items()]).mean())
    drawn = {k: np.array(counts) for k, counts in held.items()}
    trial.measure("law", max(gap(counts, k) for k, counts in drawn.items() if len(counts) > 50))
    if not trial.is_ablation:
        closed = [separable_labellings(n, k) for n in range(2, 30) for k in range(2, 30)]
        steps = [
            separable_labellings(n - 1, k) + separable_labellings(n - 1, k - 1)
            for n in range(2, 30)
            for k in range(2, 30)
        ]
        trial.oracle("Cover's recursion", closed == steps, f"{len(steps)} pairs of N and K")
        show(trial, drawn)


def share(points: int, weights: int) -> Fraction:
    """Which part of all labellings can be learnt."""
    return Fraction(separable_labellings(points, weights), 2**points)


def holds(trial: Trial, k: int, rng: np.random.Generator) -> int:
    """How many of a sequence of labelled points a unit of k weights can learn before the first that is too much.

    What separates more points separates fewer, so the number is found by halving an interval.
    """
    x = rng.standard_normal((4 * k, k))
    if trial.ablated("position"):
        x[:, k // 2 :] = 0
    y = np.sign(x @ rng.standard_normal(k)) if trial.ablated("chance") else rng.choice((-1.0, 1.0), len(x))
    fine, most = 0, len(x) + 1
    while most - fine > 1:
        middle = (fine + most) // 2 if fine else min(2 * k, most - 1)
        if separation(x[:middle], y[:middle])[0]:
            fine = middle
        else:
            most = middle
    return fine


def gap(counts: NDArray[np.int64], k: int) -> float:
    """The largest difference between the shares of sequences held at N points, as found and by Cover's formula."""
    return max(abs(float((counts >= n).mean()) - float(share(n, k))) for n in range(1, 4 * k + 1))


def show(trial: Trial, drawn: dict[int, NDArray[np.int64]]) -> None:
    ratios = np.linspace(1, 3, 41)
    series = []
    for k, counts in drawn.items():
        points = [round(ratio * k) for ratio in ratios]
        places = tuple(n / k for n in points)
        series.append(Series(f"{k} weights, tried", places, tuple(float((counts >= n).mean()) for n in points)))
        series.append(Series(f"{k} weights, formula", places, tuple(float(share(n, k)) for n in points), paper=True))
    trial.plot(
        title="Up to two points per weight, nearly everything can be memorised",
        x="points per weight",
        y="share of random labellings that can be learnt",
        series=series,
    )
    trial.table(
        title="How many labels a unit holds",
        head=("weights", "held on average", "per weight", "by the formula"),
        rows=tuple((k, round(float(f.mean()), 2), round(float(f.mean()) / k, 3), 2 * k) for k, f in drawn.items()),
    )
