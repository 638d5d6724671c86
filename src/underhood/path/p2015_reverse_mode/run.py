"""Baydin et al. 2015: all slopes of a program in one walk back."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.grad.check import relative_error
from underhood.grad.counting import cost_of_forward_pass, cost_of_function, cost_of_reverse
from underhood.grad.order import topological_order
from underhood.grad.programs import helmholtz, logistic, random_program, rosenbrock, survey
from underhood.grad.programs import run as follow
from underhood.grad.symbolic import Formula
from underhood.grad.tensor import Tensor
from underhood.grad.value import Value
from underhood.path.lib.log_slope import log_slope

Floats = NDArray[np.float64]


def run(trial: Trial) -> None:
    trial.measure("second", backward(survey, [2.0, 5.0])[1])
    for seed in trial.each_seed():
        trial.measure("reverse", from_torch(trial, np.random.default_rng(seed), trial.by_scale(smoke=40, report=400)))
    costs(trial)
    swell(trial)


def backward(f: Callable[..., Any], point: list[float]) -> list[float]:
    inputs = [Value(x) for x in point]
    f(*inputs).backward()
    return [x.grad for x in inputs]


def from_torch(trial: Trial, rng: np.random.Generator, programs: int) -> float:
    """The largest difference from torch.autograd over random programs on numbers and on arrays, relative above 1."""
    worst = 0.0
    for number in range(programs):
        trial.progress(number / programs, "random programs")
        program = random_program(rng, int(rng.integers(5, 40)))
        point = rng.uniform(-2, 2, 3)
        ours = [Value(x) for x in point.tolist()]
        end = follow(program, ours)
        end.backward() if not trial.ablated("adding") else forgetful(end)
        arrays = [rng.standard_normal(shape) for shape in ((3, 1, 2), (4, 1), ())]
        tensors = [Tensor(array) for array in arrays]
        follow(program, tensors).sum().backward()
        gradients = [np.array(x.grad) for x in ours] + [
            np.zeros(t.shape) if t.grad is None else t.grad for t in tensors
        ]
        truth = slopes_by_torch(program, [np.array(x) for x in point]) + slopes_by_torch(program, arrays)
        worst = max(worst, *(relative_error(a, b, floor=1.0) for a, b in zip(gradients, truth, strict=True)))
    return worst


def slopes_by_torch(
    program: list[tuple[str, int, int]], arrays: list[NDArray[np.float64]]
) -> list[NDArray[np.float64]]:
    tensors = [torch.tensor(array, dtype=torch.float64, requires_grad=True) for array in arrays]
    follow(program, tensors).sum().backward()
    return [np.zeros(t.shape) if t.grad is None else t.grad.numpy() for t in tensors]


def forgetful(end: Value) -> None:
    """The walk back, but for one thing: a number's adjoint is overwritten, not added up."""
    adjoint = {end: 1.0}
    for node in reversed(topological_order(end, parents)):
        node.grad = adjoint[node]
        edges = zip(node._parents, node._local_gradients, strict=True)
        adjoint |= {parent: slope * node.grad for parent, slope in edges}


def costs(trial: Trial) -> None:
    """The cost of gradients, in operations of the function, for ever more inputs."""
    sizes = {
        "valley": trial.by_scale(smoke=(10, 100, 1000), report=(10, 100, 1000, 10_000)),
        "mixed fluid": (10, 30, 100),
    }
    costs_of: dict[str, list[float]] = {}
    for name, f in (("valley", rosenbrock), ("mixed fluid", helmholtz)):
        for n in sizes[name]:
            point = [1.0 + 0.1 * math.sin(i) for i in range(n)]
            alone = cost_of_function(f, point)
            costs_of.setdefault(f"{name}, forwards", []).append(n * cost_of_forward_pass(f, point) / alone)
            costs_of.setdefault(f"{name}, backwards", []).append(cost_of_reverse(f, point) / alone)
    way = "forwards" if trial.ablated("backwards") else "backwards"
    trial.measure("cheap", max(max(costs_of[f"{name}, {way}"]) for name in sizes))
    trial.measure("growth", log_slope(sizes["valley"], costs_of[f"valley, {way}"]))
    trial.plot(
        title="What a gradient costs",
        x="inputs",
        y="operations, in those of the function",
        log_x=True,
        log_y=True,
        series=tuple(
            Series(name, tuple(map(float, sizes[name.split(",")[0]])), tuple(ratios))
            for name, ratios in costs_of.items()
        ),
    )
    single: dict[str, Callable[..., Any]] = {
        "a + b": lambda a, b: a + b,
        "a · b": lambda a, b: a * b,
        "a / b": lambda a, b: a / b,
        "a³": lambda a, b: a**3,
        "exp a": lambda a, b: a.exp(),
        "sin a": lambda a, b: a.sin(),
        "tanh a": lambda a, b: a.tanh(),
    }
    rows = (
        (name, *(float(cost(f, [1.5, 0.5])) for cost in (cost_of_function, cost_of_forward_pass, cost_of_reverse)))
        for name, f in single.items()
    )
    head = ("operation", "alone", "with a slope (forwards)", "with all slopes (backwards)")
    trial.table(title="What one operation costs", head=head, rows=rows)


def swell(trial: Trial) -> None:
    """How long the formula and the tape of the logistic map's slope get."""
    steps = range(1, 21)
    formulas = [logistic(Formula("x"), n) for n in steps]
    slopes = [float(made.slope.length) for made in formulas]
    tapes = [sum(bool(node._parents) for node in topological_order(logistic(Value(0.3), n), parents)) for n in steps]
    written = [made.length for made in formulas] if trial.ablated("tape") else tapes
    trial.measure("swell", min(b / a for a, b in pairwise(slopes)))
    trial.measure("tape", max(b - a for a, b in pairwise(written)))
    ours, formula = backward(lambda x: logistic(x, 10), [0.3])[0], formulas[9].slope.at({"x": 0.3})
    trial.oracle("the formula, worked out", abs(ours / formula - 1) < 1e-10, f"{ours:.6g} and {formula:.6g}")
    places = tuple(map(float, steps))
    trial.plot(
        title="Formulas explode, tapes do not",
        x="steps of l ← 4l(1 − l)",
        y="operations",
        log_y=True,
        series=(
            Series("the slope's formula", places, tuple(slopes)),
            Series("the tape", places, tuple(map(float, tapes))),
        ),
    )


def parents(node: Value) -> tuple[Value, ...]:
    return node._parents
