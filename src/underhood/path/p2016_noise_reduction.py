"""Bottou, Curtis & Nocedal 2016, section 5: cheap random steps that lose their noise on the way down."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Plot, Series
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
    near,
)
from underhood.core.trial import Trial
from underhood.data.digits import digits
from underhood.train.finite_sum import Descent, Logistic, saga, stochastic, svrg

Floats = NDArray[np.float64]

MILESTONE = Milestone(
    stem="p2016_noise_reduction",
    topics=("opt-noise-reduction",),
    title="Less noise: SVRG, SAGA, averages and growing batches",
    year=2016,
    question="Can random steps be cheap and exact in the end?",
    asks=(
        "what is variance reduction?",
        "what is SVRG or SAGA?",
        "why average the weights of a model?",
        "why do batch sizes grow during training?",
    ),
    papers=(
        Paper(
            authors="L. Bottou, F. E. Curtis, J. Nocedal",
            year=2016,
            title="Optimization methods for large-scale machine learning, section 5",
            link="https://arxiv.org/abs/1606.04838",
        ),
    ),
    idea=r"""
A random example's gradient is right on average and wrong every time, even at the minimum, where the mean of all
gradients is zero but no single one is. So a fixed step never settles, and a shrinking one crawls. Three ways to be rid
of the noise:

*Correct it.* Let $\tilde w$ be a point where the whole gradient is known. The example that was drawn was wrong there by
a known amount, and near $\tilde w$ it is wrong by about the same. Subtract it (SVRG):

$$g = \nabla f_i(w) - \nabla f_i(\tilde w) + \nabla F(\tilde w)$$

As $w$ and $\tilde w$ approach the minimum, the first two cancel and the noise vanishes: a fixed step converges, by the
same factor in every round. SAGA keeps the last gradient of every example in place of one $\tilde w$.

*Average it.* Take rather long steps, which shrink slowly, and let the answer be the mean of all iterates: what goes to
and fro cancels, and the rate $1/k$ comes without tuning (Polyak and Ruppert).

*Outnumber it.* Let the batch grow as the gap shrinks. Today's runs do the same when they raise the batch size; and an
average over the last iterates is what many of them ship.
""",
    claims=(
        Claim(
            key="svrg",
            statement="SVRG divides the gap by a million in 60 passes (what is left of it)",
            judge=at_most(1e-6),
            paper=Printed("linear", "verified", "section 5.3"),
        ),
        Claim(
            key="saga",
            statement="So does SAGA in half of them, 30",
            judge=at_most(1e-6),
            paper=Printed("linear", "verified", "section 5.3"),
        ),
        Claim(
            key="straight",
            statement="Their log gaps fall on straight lines: the same factor in every pass (share explained)",
            judge=at_least(0.97),
        ),
        Claim(
            key="plain",
            statement="SGD with shrinking steps is a thousand times as far from the minimum after 30 passes as SAGA",
            judge=at_least(1000),
            paper=Printed("sublinear, 1/k", "verified", "theorem 4.7"),
        ),
        Claim(
            key="bound",
            statement="In every round SVRG's gap shrinks at least as much as its theorem promises (factor over bound)",
            judge=at_most(1.0),
            paper=Printed("ρ = (1/(mαc) + 2Lα) / (1 − 2αL)", "verified", "section 5.3"),
            middle="max",
            scale="report",
        ),
        Claim(
            key="average",
            statement="The mean of SGD's iterates is three times as near to the minimum as the last of them, or nearer",
            judge=at_least(3.0, shape=1.5, null=1.0),
        ),
        Claim(
            key="average_rate",
            statement="Its gap falls as 1/k although the steps shrink more slowly (slope on log-log axes)",
            judge=near(-1.0, 0.25),
            paper=Printed(-1, "recalled", "section 5.4"),
            scale="report",
        ),
        Claim(
            key="batches",
            statement="With the same step and as many examples, growing batches end five times nearer than single ones",
            judge=at_least(5.0, null=1.0),
        ),
    ),
    ablations=(
        Ablation("correction", "SVRG does not correct, SAGA keeps the gradients of the start", ("svrg", "saga")),
        Ablation("average", "the last iterate is the answer", ("average",)),
        Ablation("growth", "the batches stay as they are at the start", ("batches",)),
    ),
    minutes=Minutes(read=6, smoke=0.2, report=1.5),
    seeds=Seeds(smoke=3, report=10),
    code=("underhood.train.finite_sum:svrg", "underhood.train.finite_sum:saga"),
    hard="""
The task is to tell even from odd digits by logistic regression with a ridge of 0.2; the seeds share the pictures and
differ in their order. The steps of SVRG and SAGA are the usual 1 / 3L, longer than SVRG's theorem allows; its bound is
checked with a step of 0.1 / L and rounds of 50 L / c steps, for which it promises half. A pass is a gradient per
picture: SVRG's corrections and whole gradients are counted.
""",
    then="A different cure for slowness, curvature: opt-second-order.",
)

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
        svrgs, sagas = (np.maximum(found.values_TR[:, at] - best, 1e-16) for found in (by_svrg, by_saga))
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
        ends = [found.values_TR[-10:, at].mean() - best for found in (single, grown)]
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
        gaps, others = (found.values_TR[:, runs].mean(axis=1) - best for found in (mean, last))
        trial.measure("average", others[-20:].mean() / gaps[-20:].mean())
        trial.measure("average_rate", np.polyfit(np.log(mean.passes[late]), np.log(gaps[late]), 1)[0])
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
    found = svrg(problem, start_RD, step, passes, np.random.default_rng(3), inner=inner)
    gaps_T = found.values_TR.mean(axis=1) - best
    return [float(factor) / bound for factor in gaps_T[1:] / gaps_T[:-1]]


def show(trial: Trial, curves: dict[str, Descent], best: float) -> None:
    series = []
    for name, found in curves.items():
        gap_T = found.values_TR.mean(axis=1) - best
        seen = gap_T > 1e-13
        series.append(Series(name, tuple(found.passes[seen].tolist()), tuple(gap_T[seen].tolist())))
    trial.figure(
        Plot(
            title="Straight lines down, and what crawls",
            x="passes over the pictures",
            y="gap to the minimum",
            log_y=True,
            series=tuple(series),
        )
    )
