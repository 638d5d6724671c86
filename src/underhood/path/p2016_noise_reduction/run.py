"""Bottou, Curtis & Nocedal 2016, section 5: cheap random steps that lose their noise on the way down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.digits import digits
from underhood.path.lib.log_slope import log_slope
from underhood.train.finite_sum import Descent, Logistic, saga, stochastic, svrg

Floats = NDArray[np.float64]


RIDGE = 0.2


def run(trial: Trial) -> None:
    problem = even_or_odd(trial.by_scale(smoke=200, report=1400))
    w_best, best = problem.best()
    slope = float(np.abs(problem.gradient(w_best)).max())
    trial.oracle("no slope is left at the minimum", slope < 1e-12, f"largest {slope:.1e}")
    start_RD = np.zeros((len(trial.seeds), len(w_best)))
    curves: dict[str, Descent] = {}
    if trial.wants("svrg", "saga", "straight", "plain"):
        curves |= corrected(trial, problem, start_RD)
    if trial.wants("batches"):
        curves |= outnumbered(trial, problem, start_RD)
    if trial.wants("average", "average_rate"):
        curves |= averaged(trial, problem, start_RD)
    if trial.wants("bound"):
        for factor in over_bound(problem, start_RD, best):
            trial.measure("bound", factor)
    show(trial, curves, best)


def corrected(trial: Trial, problem: Logistic, start_RD: Floats) -> dict[str, Descent]:
    (w_best, best), rng, right = problem.best(), np.random.default_rng(2), not trial.ablated("correction")
    step = 1 / (3 * problem.example_smoothness)
    by_svrg = svrg(problem, start_RD, step, 60, rng, corrected=right)
    by_saga = saga(problem, start_RD, step, 30, rng, refresh=right)
    beta = 1 / float(np.linalg.eigvalsh(problem.hessian(w_best))[0])
    gamma = beta * problem.example_smoothness
    plain = stochastic(problem, start_RD, lambda k: beta / (gamma + k), 30, rng)
    for at, _ in enumerate(trial.each_seed()):
        svrgs, sagas = (np.maximum(descent.values_TR[:, at] - best, 1e-16) for descent in (by_svrg, by_saga))
        trial.measure("svrg", svrgs[-1] / svrgs[0])
        trial.measure("saga", sagas[-1] / sagas[0])
        trial.measure("straight", min(explained(by_svrg.passes, svrgs), explained(by_saga.passes, sagas)))
        trial.measure("plain", (plain.values_TR[-1, at] - best) / sagas[-1])
    return {"SVRG": by_svrg, "SAGA": by_saga, "SGD, shrinking step": plain}


def outnumbered(trial: Trial, problem: Logistic, start_RD: Floats) -> dict[str, Descent]:
    rng, best, step = np.random.default_rng(4), problem.best()[1], 1 / (3 * problem.example_smoothness)
    batch = (lambda k: 1) if trial.ablated("growth") else (lambda k: int(1.004**k))
    grown = stochastic(problem, start_RD, lambda k: step, 30, rng, batch=batch)
    single = stochastic(problem, start_RD, lambda k: step, 30, rng)
    for at, _ in enumerate(trial.each_seed()):
        ends = [descent.values_TR[-10:, at].mean() - best for descent in (single, grown)]
        trial.measure("batches", ends[0] / ends[1])
    return {"SGD, fixed step": single, "growing batches": grown}


def averaged(trial: Trial, problem: Logistic, start_RD: Floats) -> dict[str, Descent]:
    """The mean of all iterates and the last one, of the same runs; a seed's gap is the mean of eight runs."""
    best, step = problem.best()[1], 1 / problem.example_smoothness
    slow = lambda k: step * (k + 1) ** -0.52  # noqa: E731
    mean, last = (
        stochastic(problem, np.repeat(start_RD, 8, axis=0), slow, 80, np.random.default_rng(5), average=average)
        for average in (not trial.ablated("average"), False)
    )
    late = mean.passes > 20
    for at, _ in enumerate(trial.each_seed()):
        runs = slice(8 * at, 8 * at + 8)
        gaps, others = (descent.values_TR[:, runs].mean(axis=1) - best for descent in (mean, last))
        trial.measure("average", others[-20:].mean() / gaps[-20:].mean())
        trial.measure("average_rate", log_slope(mean.passes[late], gaps[late]))
    return {"mean of the iterates": mean, "the last of them": last}


def even_or_odd(count: int) -> Logistic:
    pictures, _ = digits(0)
    x_ND = pictures.x[:count].reshape(count, 64).astype(np.float64)
    return Logistic(np.hstack([x_ND, np.ones((count, 1))]), np.where(pictures.y[:count] % 2 == 0, 1.0, -1.0), RIDGE)


def explained(passes: Floats, gaps: Floats) -> float:
    """The share of the log gap's variance that a straight line over the passes explains, above rounding."""
    seen = gaps > 1e-13
    return float(np.corrcoef(passes[seen], np.log(gaps[seen]))[0, 1] ** 2)


def over_bound(problem: Logistic, start_RD: Floats, best: float) -> list[float]:
    """Every round's factor (mean over the runs, as the theorem is about expectations) over the theorem's."""
    steepest = problem.example_smoothness
    step, inner = 0.1 / steepest, round(50 * steepest / problem.ridge)
    bound = (1 / (inner * step * problem.ridge) + 2 * steepest * step) / (1 - 2 * step * steepest)
    passes = 2 * (1 + 2 * inner / len(problem)) - 1
    descent = svrg(problem, start_RD, step, passes, np.random.default_rng(3), inner=inner)
    gaps_T = descent.values_TR.mean(axis=1) - best
    return [float(factor) / bound for factor in gaps_T[1:] / gaps_T[:-1]]


def show(trial: Trial, curves: dict[str, Descent], best: float) -> None:
    series = []
    for name, descent in curves.items():
        gap_T = descent.values_TR.mean(axis=1) - best
        seen = gap_T > 1e-13
        series.append(Series(name, tuple(descent.passes[seen].tolist()), tuple(gap_T[seen].tolist())))
    trial.plot(
        title="Straight lines down, and what crawls",
        x="passes over the pictures",
        y="gap to the minimum",
        log_y=True,
        series=series,
    )
