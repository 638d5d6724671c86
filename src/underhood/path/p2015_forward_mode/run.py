"""Baydin et al. 2015: the slope of a program, carried along by numbers of two parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from underhood.core.figures import Grid, Series
from underhood.core.trial import Trial
from underhood.grad.check import central, quotient, relative_error
from underhood.grad.counting import cost_of_forward_pass, cost_of_function
from underhood.grad.dual import Dual, directional
from underhood.grad.programs import Program, helmholtz, random_program, rosenbrock, survey
from underhood.grad.programs import run as follow


def run(trial: Trial) -> None:
    value, slope = directional(survey, (2.0, 5.0), (1.0, 0.0))
    trial.measure("value", value)
    trial.measure("first", slope)
    trial.oracle("the closed form 1 / x₁ + x₂", slope == 1 / 2 + 5)
    ablated = trial.ablated("carried")
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        programs = trial.by_scale(smoke=150, report=400)
        errors = [from_torch(random_program(rng, int(rng.integers(5, 40))), rng, ablated) for _ in range(programs)]
        trial.measure("forward", max(errors))
        trial.measure("digits", lost_digits(rng, ablated))
    costs(trial)
    trial.figure(trace())


def from_torch(program: Program, rng: np.random.Generator, ablated: bool) -> float:
    """The difference from torch.func.jvp in a random direction, relative above 1."""
    point, direction = rng.uniform(-2, 2, 3), rng.standard_normal(3)
    f: Callable[[Sequence[Any]], Any] = lambda xs: follow(program, xs)  # noqa: E731
    if ablated:
        at = lambda s: dual_value(f, point + s[0] * direction)  # noqa: E731
        derivative = float(central(at, np.zeros(1))[0])
    else:
        derivative = directional(lambda *xs: f(xs), point.tolist(), direction.tolist())[1]
    tensors = torch.from_numpy(point), torch.from_numpy(direction)
    truth = torch.func.jvp(lambda x: f(list(x)), tensors[:1], tensors[1:])[1]
    return relative_error(np.array(derivative), truth.numpy(), floor=1.0)


def dual_value(f: Callable[[Sequence[Any]], Any], point: Any) -> float:
    return f([Dual(x) for x in point.tolist()]).value


def lost_digits(rng: np.random.Generator, ablated: bool) -> float:
    """Root mean square error of the best differences over that of forward mode, for the survey's example."""
    x1_N, x2 = rng.uniform(0.5, 4, 200), 5.0
    truth_N = 1 / x1_N + x2
    error = lambda forward_N: float(np.sqrt(np.mean((forward_N - truth_N) ** 2)))  # noqa: E731
    plain = lambda x: np.log(x) + x * x2 - math.sin(x2)  # noqa: E731
    best = min(error(quotient(plain, x1_N, step)) for step in np.logspace(-9, -1, 40))
    forward_N = np.array([directional(survey, (x, x2), (1.0, 0.0))[1] for x in x1_N.tolist()])
    return best / (best if ablated else max(error(forward_N), np.finfo(np.float64).eps / 10))


def costs(trial: Trial) -> None:
    sizes = (10, 100, 1000)
    passes, gradients = [], []
    for n in sizes:
        point = [1.0 + 0.1 * math.sin(i) for i in range(n)]
        passes += [
            cost_of_forward_pass(f, p) / cost_of_function(f, p)
            for f, p in ((rosenbrock, point), (helmholtz, point[:100]))
        ]
        gradients.append(n * passes[-2])
    trial.measure("pass", max(passes))
    trial.measure("passes", min(b / a for a, b in pairwise(gradients)))
    trial.plot(
        title="A gradient, one pass per input",
        x="inputs",
        y="operations, in those of the function",
        log_x=True,
        log_y=True,
        series=(Series("forward mode", tuple(map(float, sizes)), tuple(gradients)),),
    )


def trace() -> Grid:
    """The survey's table 2, step by step: the values, and the slopes beside them."""
    x1, x2 = Dual(2.0, 1.0), Dual(5.0)
    steps = [("x₁", x1), ("x₂", x2), ("ln x₁", x1.log()), ("x₁ x₂", x1 * x2), ("sin x₂", x2.sin())]
    steps += [("ln x₁ + x₁ x₂", x1.log() + x1 * x2), ("ln x₁ + x₁ x₂ − sin x₂", survey(x1, x2))]
    rows = tuple((name, dual.value, dual.slope) for name, dual in steps)
    return Grid(title="Both parts, step by step", head=("step", "value", "slope in x₁"), rows=rows)
