"""Bottou, Curtis & Nocedal 2016, section 6: steps that know how the ground bends."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.grad.check import relative_error
from underhood.grad.counting import cost_of_curvature, cost_of_reverse
from underhood.grad.programs import random_program, rosenbrock
from underhood.grad.programs import run as follow
from underhood.grad.second import hessian_vector
from underhood.train.curvature import conjugate_gradients, lbfgs, newton
from underhood.train.finite_sum import Logistic

Floats = NDArray[np.float64]


CONDITION = 1e4


def run(trial: Trial) -> None:
    errors = np.zeros(0)
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        problem = made(rng)
        w_best, _ = problem.best()
        path, apart = in_two_units(problem, rng.standard_normal((5, 5)) + 3 * np.eye(5), trial.ablated("curvature"))
        errors = np.array([np.abs(w - w_best).max() for w in path])
        trial.measure("order", order(errors))
        trial.measure("steps", float((errors < 1e-12).argmax()) if (errors < 1e-12).any() else np.inf)
        trial.measure("units", apart)
        trial.measure("product", from_torch(rng, trial.by_scale(smoke=30, report=200)))
        trial.measure("fisher", float(np.abs(fisher(problem, w_best) - problem.hessian(w_best)).max()))
        h, start = turned(rng, np.geomspace(1, CONDITION, 10)), rng.standard_normal(10)
        plain, ours = descent_steps(h, start), lbfgs_steps(h, start, 0 if trial.ablated("memory") else 10)
        trial.measure("descent", plain)
        trial.measure("lbfgs", ours / plain)
        trial.measure("fifty", ours)
        three = turned(rng, np.array([1.0] * 4 + [5.0] * 3 + [9.0] * 3))
        trial.measure("conjugate", conjugate_gradients(three.__matmul__, start, tolerance=1e-10)[1])
    points = ([1.0 + 0.1 * np.sin(i) for i in range(n)] for n in (10, 100, 1000))
    trial.measure("cost", max(cost_of_curvature(rosenbrock, p) / cost_of_reverse(rosenbrock, p) for p in points))
    if not trial.is_ablation:
        show(trial, errors)


def made(rng: np.random.Generator) -> Logistic:
    x_ND = rng.standard_normal((200, 5))
    likely_N = 1 / (1 + np.exp(-x_ND @ rng.standard_normal(5)))
    return Logistic(x_ND, np.where(rng.random(200) < likely_N, 1.0, -1.0), 0.01)


def in_two_units(problem: Logistic, b: Floats, flat: bool) -> tuple[list[Floats], float]:
    """Newton's path in w, and how far that in v (w = B v) is from it; `flat` bends everything as the steepest."""
    steepest = problem.smoothness * np.eye(5)
    path = newton(problem.gradient, (lambda w: steepest) if flat else problem.hessian, np.zeros(5), steps=12)
    gradient = lambda v: b.T @ problem.gradient(b @ v)  # noqa: E731
    other = newton(gradient, lambda v: steepest if flat else b.T @ problem.hessian(b @ v) @ b, np.zeros(5), steps=12)
    return path, max(float(np.abs(b @ v - w).max()) for v, w in zip(other, path, strict=True))


def order(errors: Floats) -> float:
    """log of one step's factor over log of the step's before, where the errors are small but above rounding."""
    small = [e for e in errors if 1e-13 < e < 0.3]
    return float(np.log(small[-1] / small[-2]) / np.log(small[-2] / small[-3])) if len(small) > 2 else np.inf


def fisher(problem: Logistic, w: Floats) -> Floats:
    """The mean of ∇ log p ∇ log pᵀ over examples *and over the labels that the model expects*, and the ridge."""
    p_N = 1 / (1 + np.exp(-problem.x_ND @ w))
    total = np.zeros((5, 5))
    for label, weight_N in ((1.0, p_N), (0.0, 1 - p_N)):
        slopes_ND = (label - p_N)[:, None] * problem.x_ND
        total += (slopes_ND * weight_N[:, None]).T @ slopes_ND / len(problem)
    return total + problem.ridge * np.eye(5)


def from_torch(rng: np.random.Generator, programs: int) -> float:
    worst = 0.0
    for _ in range(programs):
        program = random_program(rng, 20)
        point, direction = rng.uniform(-2, 2, 3), rng.standard_normal(3)
        _, ours = hessian_vector(lambda *xs, p=program: follow(p, xs), point.tolist(), direction.tolist())
        f = lambda x, p=program: follow(p, list(x))  # noqa: E731
        theirs = torch.autograd.functional.hvp(f, torch.from_numpy(point), torch.from_numpy(direction))
        worst = max(worst, relative_error(np.array(ours), np.asarray(theirs[1]), floor=1.0))
    return worst


def turned(rng: np.random.Generator, curvatures: Floats) -> Floats:
    """The Hessian of a valley with these curvatures, in directions that lie anyhow."""
    turn = np.linalg.qr(rng.standard_normal((len(curvatures), len(curvatures))))[0]
    return turn @ np.diag(curvatures) @ turn.T


def descent_steps(h: Floats, w: Floats) -> int:
    """Steps of gradient descent with the best fixed step until the gradient is 1e-8 of that at the start.

    Every direction shrinks by its own factor in each step, so the number can be bisected.
    """
    curvature, turn = np.linalg.eigh(h)
    along, factors = np.abs(turn.T @ w) * curvature, 1 - 2 / (1 + CONDITION) * curvature
    low, high = 0, 10**7
    while high - low > 1:
        steps = (low + high) // 2
        reached = np.linalg.norm(along * np.abs(factors) ** steps) <= 1e-8 * np.linalg.norm(along)
        low, high = (low, steps) if reached else (steps, high)
    return high


def lbfgs_steps(h: Floats, w: Floats, memory: int) -> int:
    points = lbfgs(lambda w: float(0.5 * w @ h @ w), lambda w: h @ w, w, steps=min(50 * len(w), 3000), memory=memory)
    slopes = np.array([np.linalg.norm(h @ w) for w in points])
    reached = slopes <= 1e-8 * slopes[0]
    return int(reached.argmax()) if reached.any() else 10**6


def show(trial: Trial, errors: Floats) -> None:
    seen = errors > 1e-16
    steps = tuple(np.arange(len(errors))[seen].astype(float).tolist())
    newtons = Series("Newton", steps, tuple(errors[seen].tolist()))
    trial.plot(title="Right digits double with every step", x="step", y="error", log_y=True, series=(newtons,))
    rng = np.random.default_rng(0)
    rows = []
    for size in trial.by_scale(smoke=(2, 10), report=(2, 10, 50, 200)):
        h, w = turned(rng, np.geomspace(1, CONDITION, size)), rng.standard_normal(size)
        rows.append((size, descent_steps(h, w), *(lbfgs_steps(h, w, memory) for memory in (5, 10, 50))))
    head = ("dimensions", "gradient descent", "L-BFGS, 5 kept", "10 kept", "50 kept")
    trial.table(title="Steps in a valley with κ = 10,000", head=head, rows=rows)
