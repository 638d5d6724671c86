"""Bottou, Curtis & Nocedal 2016: why one random example at a time beats the exact gradient, and where it stops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.log_slope import log_slope
from underhood.train.curvature import lbfgs
from underhood.train.finite_sum import Descent, Logistic, full, stochastic

Floats = NDArray[np.float64]


RIDGE, FEATURES, GAP = 0.01, 30, 0.03
STEPS = (0.005, 0.01, 0.02, 0.04, 0.08)
FIXED = 0.02


def run(trial: Trial) -> None:
    n, rng = trial.by_scale(smoke=500, report=4000), np.random.default_rng(1)
    problem = made(n)
    w_best, best = problem.best()
    start_RD = np.zeros((8 * len(trial.seeds), FEATURES))

    def descend(step: Callable[[int], float], passes: float) -> Descent:
        descent = full(problem, start_RD, 1 / problem.smoothness, int(passes))
        if not trial.ablated("sampling"):
            descent = stochastic(problem, start_RD, step, passes, rng, marks=200)
        return replace(descent, values_TR=descent.values_TR.reshape(len(descent.passes), -1, 8).mean(axis=2))

    def gaps(descent: Descent, passes: float) -> Floats:
        return descent.values_TR[np.searchsorted(descent.passes, passes - 1e-6)] - best

    def fixed(step: float, passes: float) -> Descent:
        return descend(lambda k: step, passes)

    tried = trial.each(STEPS, "step size")
    chosen = min(tried, key=lambda step: gaps(fixed(step, 1), 1).mean())
    sgd, halved, whole = (
        fixed(chosen, 20),
        fixed(FIXED / 2, 20),
        full(problem, start_RD[::8], 1 / problem.smoothness, 20),
    )
    higher = sgd if chosen == FIXED else fixed(FIXED, 20)
    beta = 1 / float(np.linalg.eigvalsh(problem.hessian(w_best))[0])
    gamma = beta * problem.example_smoothness
    shrunk = descend(
        lambda k: beta / (gamma + (0 if trial.ablated("shrinking") else k)), trial.by_scale(smoke=30, report=20)
    )
    passes, batch = counted_lbfgs(problem, 20)
    late = shrunk.passes * n > 2 * gamma
    looked = {name: examples(name, len(trial.seeds), rng, trial) for name in ("stochastic", "full")}
    floors = [descent.values_TR[descent.passes > 10].mean(axis=0) - best for descent in (higher, halved)]
    for at, _ in enumerate(trial.each_seed()):
        trial.measure("early", (gaps(whole, 1) / gaps(sgd, 1))[at])
        falls = [(gaps(sgd, 0) - gaps(sgd, passes))[at] for passes in (1, 10)]
        trial.measure("slowdown", falls[0] / falls[1])
        trial.measure("floor", floors[0][at] / floors[1][at])
        trial.measure("rate", log_slope(shrunk.passes[late] * n + gamma, shrunk.values_TR[late, at] - best))
        trial.measure("examples", log_slope(SIZES, looked["stochastic"][:, at]))
        trial.measure("examples_full", log_slope(SIZES, looked["full"][:, at]))
        compared = zip(passes, batch, strict=True)
        ahead = [float(p) for p, value in compared if 0 < p < 20 and value - best < gaps(sgd, p)[at]]
        trial.measure("overtaken", min(ahead, default=np.inf))
        trial.measure("ends_lower", gaps(sgd, 20)[at] / max(batch[passes <= 20][-1] - best, 1e-15))
    curves = {"gradient descent": whole, f"SGD, step {chosen:g}": sgd, f"SGD, step {FIXED / 2:g}": halved}
    show(trial, curves | {"SGD, shrinking step": shrunk}, passes, batch, best, looked)


def made(n: int) -> Logistic:
    """Labels that a random linear rule makes likely, for the first n of one endless stream of examples."""
    truth = np.random.default_rng(100).standard_normal(FEATURES)
    x_ND = np.random.default_rng(101).standard_normal((n, FEATURES))
    likely_N = 1 / (1 + np.exp(-x_ND @ truth))
    return Logistic(x_ND, np.where(np.random.default_rng(102).random(n) < likely_N, 1.0, -1.0), RIDGE)


def counted_lbfgs(problem: Logistic, passes: int) -> tuple[Floats, Floats]:
    """Passes (values and gradients that are asked for at one point count once) and F after every iteration."""
    requests: list[bytes] = []
    used: dict[bytes, int] = {}

    def gradient(w: Floats) -> Floats:
        requests.append(w.tobytes())
        return problem.gradient(w)

    points = lbfgs(lambda w: float(problem.value(w)), gradient, np.zeros(FEATURES), steps=passes)
    for key in requests:
        used.setdefault(key, len(used))
    return np.array([float(used[w.tobytes()]) for w in points]), np.array([float(problem.value(w)) for w in points])


SIZES = (250, 1000, 4000)


def examples(name: str, runs: int, rng: np.random.Generator, trial: Trial) -> Floats:
    """How many examples are looked at until the gap is `GAP`, for data of every size, (sizes, runs)."""
    counted = []
    for n in SIZES:
        problem = made(n)
        start_RD, best = np.zeros((runs, FEATURES)), problem.best()[1]
        if name == "full" or trial.ablated("sampling"):
            descent = full(problem, start_RD, 1 / problem.smoothness, 40)
        else:
            descent = stochastic(problem, start_RD, lambda k: FIXED, 4000 / n, rng, marks=800)
        reached = (descent.values_TR - best < GAP).argmax(axis=0)
        counted.append(descent.passes[reached] * n)
    return np.array(counted)


def show(
    trial: Trial, curves: dict[str, Descent], passes: Floats, batch: Floats, best: float, looked: dict[str, Floats]
) -> None:
    series = [
        Series(name, tuple(map(float, descent.passes)), tuple(map(float, descent.values_TR.mean(axis=1) - best)))
        for name, descent in curves.items()
    ]
    near_enough = batch - best > 1e-6
    series.append(
        Series("L-BFGS", tuple(map(float, passes[near_enough])), tuple(map(float, batch[near_enough] - best)))
    )
    trial.plot(
        title="First fast, then slow",
        x="passes over the data",
        y="gap to the minimum",
        log_y=True,
        series=series,
    )
    trial.plot(
        title=f"Examples looked at until the gap is {GAP:g}",
        x="examples there are",
        y="examples looked at",
        log_x=True,
        log_y=True,
        series=tuple(
            Series(words, tuple(map(float, SIZES)), tuple(map(float, looked[name].mean(axis=1))))
            for name, words in (("stochastic", "SGD"), ("full", "gradient descent"))
        ),
    )
