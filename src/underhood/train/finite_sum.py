"""Sums of many small losses, and the ways down that need only a few of them at a time.

``F(w) = (1/n) Σ fᵢ(w)``: a whole gradient costs n small ones, so one step of gradient descent buys n steps of
stochastic gradient descent. What the stochastic ones lose is exactness, for a random example's gradient is right only
on average. SVRG and SAGA correct it by the stored gradients of the other examples, averaging corrects the iterates.

All costs are in passes over the data: n gradients of single examples are one pass. Several runs from different seeds go
side by side, as the leading axis R of the weights.

Source: Bottou, Curtis & Nocedal 2018 ("Optimization methods for large-scale machine learning"), sections 4 and 5.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Step = Callable[[int], float]
"""The step size of update k, counted from 0."""


@dataclass(frozen=True)
class Logistic:
    """Logistic regression with a ridge: ``fᵢ(w) = log(1 + exp(−yᵢ xᵢᵀw)) + ½ ridge |w|²``.

    Attributes:
        x_ND: features; a column of ones gives a bias, which the ridge holds down too.
        y_N: labels −1 and 1.
        ridge: λ; it makes F strongly convex with that constant.
    """

    x_ND: Floats
    y_N: Floats
    ridge: float

    def __len__(self) -> int:
        return len(self.y_N)

    @cached_property
    def signed_ND(self) -> Floats:
        """``yᵢ xᵢ``: all that the loss knows of an example."""
        return self.x_ND * self.y_N[:, None]

    def value(self, w: Floats) -> Floats:
        """F of weights (…, D), shape (…)."""
        return np.logaddexp(0, -(w @ self.signed_ND.T)).mean(axis=-1) + 0.5 * self.ridge * (w * w).sum(axis=-1)

    def gradient(self, w: Floats) -> Floats:
        """∇F of weights (…, D), same shape."""
        return -_sigmoid(-(w @ self.signed_ND.T)) @ self.signed_ND / len(self) + self.ridge * w

    def pulls(self, w_RD: Floats, at_RB: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Each run's own examples and how strongly they pull, (R, B, D) and (R, B).

        ``∇fᵢ(w) = pull · yᵢ xᵢ + ridge w``: a gradient is kept by keeping a single number.
        """
        signed_RBD = self.signed_ND[at_RB]
        return signed_RBD, -_sigmoid(-(signed_RBD @ w_RD[..., None])[..., 0])

    def sampled(self, w_RD: Floats, at_RB: NDArray[np.int64]) -> Floats:
        """The mean of ∇fᵢ over each run's own examples, (R, D)."""
        signed_RBD, pull_RB = self.pulls(w_RD, at_RB)
        return (pull_RB[:, None] @ signed_RBD)[:, 0] / at_RB.shape[1] + self.ridge * w_RD

    def hessian(self, w_D: Floats) -> Floats:
        """∇²F, (D, D)."""
        p = _sigmoid(self.x_ND @ w_D)
        return (self.x_ND * (p * (1 - p))[:, None]).T @ self.x_ND / len(self) + self.ridge * np.eye(len(w_D))

    @property
    def smoothness(self) -> float:
        """An upper bound of F's curvature."""
        return float(np.linalg.eigvalsh(self.x_ND.T @ self.x_ND / len(self)).max() / 4 + self.ridge)

    @property
    def example_smoothness(self) -> float:
        """An upper bound of the curvature of every fᵢ: what stochastic steps have to respect."""
        return float((self.x_ND**2).sum(axis=1).max() / 4 + self.ridge)

    def best(self) -> tuple[Floats, float]:
        """The minimum by Newton's method, to machine precision: weights and value."""
        w = np.zeros(self.x_ND.shape[1])
        for _ in range(50):
            step = np.linalg.solve(self.hessian(w), self.gradient(w))
            scale = 1.0
            while scale > 1e-4 and self.value(w - scale * step) > self.value(w):
                scale /= 2
            w = w - scale * step
            if np.abs(step).max() < 1e-14:
                break
        return w, float(self.value(w))


@dataclass(frozen=True)
class Descent:
    """What was reached after how many passes: passes (T,), values F (T, R), the last weights (R, D)."""

    passes: Floats
    values_TR: Floats
    w_RD: Floats


class _Log:
    """Takes F down about `marks` times in the course of the passes, and at the end."""

    def __init__(self, problem: Logistic, passes: float, marks: int):
        self.problem, self.every, self.next, self.used = problem, passes / marks, 0.0, 0.0
        self.passes: list[float] = []
        self.values: list[Floats] = []

    def see(self, passes: float, w_RD: Floats) -> None:
        self.used = passes
        if passes >= self.next - 1e-9:
            self.passes.append(passes)
            self.values.append(self.problem.value(w_RD))
            self.next = passes + self.every

    def done(self, w_RD: Floats) -> Descent:
        if self.used > self.passes[-1]:
            self.next = self.used
            self.see(self.used, w_RD)
        return Descent(np.array(self.passes), np.array(self.values), w_RD)


def full(problem: Logistic, w_RD: Floats, step: float, passes: int) -> Descent:
    """Gradient descent: one exact step per pass."""
    log = _Log(problem, passes, passes)
    log.see(0, w_RD)
    for k in range(1, passes + 1):
        w_RD = w_RD - step * problem.gradient(w_RD)
        log.see(k, w_RD)
    return log.done(w_RD)


def stochastic(
    problem: Logistic,
    w_RD: Floats,
    step: Step,
    passes: float,
    generator: np.random.Generator,
    *,
    batch: Callable[[int], int] = lambda k: 1,
    average: bool = False,
    marks: int = 100,
) -> Descent:
    """Stochastic gradient descent: each step follows the mean gradient of `batch(k)` random examples.

    Args:
        average: the values are those of the mean of all iterates so far (Polyak & Juditsky 1992), not of the last.
    """
    log, k, used = _Log(problem, passes, marks), 0, 0.0
    mean_RD = w_RD
    log.see(0, w_RD)
    while used < passes:
        size = batch(k)
        at_RB = generator.integers(len(problem), size=(len(w_RD), size))
        w_RD = w_RD - step(k) * problem.sampled(w_RD, at_RB)
        k, used = k + 1, used + size / len(problem)
        mean_RD = mean_RD + (w_RD - mean_RD) / k if average else w_RD
        log.see(used, mean_RD)
    return log.done(mean_RD)


def svrg(
    problem: Logistic,
    w_RD: Floats,
    step: float,
    passes: float,
    generator: np.random.Generator,
    *,
    inner: int | None = None,
    corrected: bool = True,
) -> Descent:
    """SVRG (Johnson & Zhang 2013): now and then a whole gradient, by which the random ones in between are corrected.

    ``g = ∇fᵢ(w) − ∇fᵢ(w̃) + ∇F(w̃)``: right on average, and its noise vanishes as w and w̃ approach the minimum. The next
    w̃ is the mean of the inner iterates, for which the theorem (Bottou et al., theorem 5.1) holds.

    Args:
        inner: steps between whole gradients; None takes n. A cycle costs n + 2 · inner gradients.
        corrected: False leaves the correction out, which is plain stochastic descent from w̃ with the same step.
    """
    n, log, used = len(problem), _Log(problem, passes, 10**9), 0.0
    inner = inner or n
    log.see(0, w_RD)
    while used < passes:
        anchor_RD, whole_RD, mean_RD = w_RD, problem.gradient(w_RD), np.zeros_like(w_RD)
        for at_R1 in generator.integers(n, size=(inner, len(w_RD), 1)):
            g_RD = problem.sampled(w_RD, at_R1)
            if corrected:
                g_RD = g_RD - problem.sampled(anchor_RD, at_R1) + whole_RD
            w_RD = w_RD - step * g_RD
            mean_RD += w_RD / inner
        w_RD, used = mean_RD, used + 1 + 2 * inner / n
        log.see(used, w_RD)
    return log.done(w_RD)


def saga(
    problem: Logistic,
    w_RD: Floats,
    step: float,
    passes: float,
    generator: np.random.Generator,
    *,
    refresh: bool = True,
    marks: int = 100,
) -> Descent:
    """SAGA (Defazio et al. 2014): every example's last gradient is kept, and corrects the next random one.

    ``g = ∇fᵢ(w) − (kept)ᵢ + mean of kept``. One gradient per step, and memory
    for n of them: for linear models one number each.

    Args:
        refresh: False never replaces the kept gradients, those of the start.
    """
    n, runs = len(problem), np.arange(len(w_RD))
    signed_ND = problem.signed_ND
    kept_RN = -_sigmoid(-(w_RD @ signed_ND.T))
    mean_RD, log = kept_RN @ signed_ND / n, _Log(problem, passes, marks)
    log.see(0, w_RD)
    for k, at_R in enumerate(generator.integers(n, size=(round(n * (passes - 1)), len(w_RD)))):
        signed_RBD, fresh_RB = problem.pulls(w_RD, at_R[:, None])
        change_RD = (fresh_RB - kept_RN[runs, at_R][:, None]) * signed_RBD[:, 0]
        w_RD = w_RD - step * (change_RD + mean_RD + problem.ridge * w_RD)
        if refresh:
            kept_RN[runs, at_R] = fresh_RB[:, 0]
            mean_RD = mean_RD + change_RD / n
        log.see(1 + (k + 1) / n, w_RD)
    return log.done(w_RD)


def _sigmoid(z: Floats) -> Floats:
    return 0.5 * (1 + np.tanh(0.5 * z))
