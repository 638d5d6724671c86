"""Baydin et al. 2015: all slopes of a program in one walk back."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Grid, Plot, Series
from underhood.core.milestone import (
    Ablation,
    Claim,
    Exactly,
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
from underhood.grad.check import relative_error
from underhood.grad.counting import cost_of_forward_pass, cost_of_function, cost_of_reverse
from underhood.grad.order import topological_order
from underhood.grad.programs import helmholtz, logistic, random_program, rosenbrock, survey
from underhood.grad.programs import run as follow
from underhood.grad.symbolic import Formula
from underhood.grad.tensor import Tensor
from underhood.grad.value import Value

Floats = NDArray[np.float64]

MILESTONE = Milestone(
    stem="p2015_reverse_mode",
    topics=("autodiff-reverse",),
    title="Reverse mode: every slope in one walk back",
    year=2015,
    question="How can the gradient of a million weights cost no more than a few runs of the program?",
    asks=("what is autograd?", "why is backpropagation cheap?", "what is a tape or computation graph?"),
    papers=(
        Paper(
            authors="A. G. Baydin, B. A. Pearlmutter, A. A. Radul, J. M. Siskind",
            year=2015,
            title="Automatic differentiation in machine learning: a survey",
            link="https://arxiv.org/abs/1502.05767",
        ),
    ),
    idea=r"""
Forward mode asks how everything moves when one input moves. Learning asks the opposite: how does *one* number, the
loss, move with each of a million inputs? So turn the walk round. While the program runs, let every number remember what
it was made from and how fast it moves with each of those: the tape. Then begin at the end, with an adjoint of 1, and
walk back once. Every number hands its adjoint on to its inputs, times those local gradients:

$$\bar{u} = \sum_{v \text{ made from } u} \bar{v} \, \frac{\partial v}{\partial u}$$

Each step of the program is walked back once, for a few operations. So the slopes with respect to *everything* together
cost a small multiple of the program, whether it has ten inputs or a million: the *cheap gradient principle*.
The price is memory, for the whole program must be remembered. Every neural network is trained this way.

Why not write the derivative down as a formula? Because the derivative of a product is a sum of two products, each of
which repeats a factor: after $n$ steps there are $2^n$ of them. The tape holds numbers, and writes nothing twice.
""",
    claims=(
        Claim(
            key="second",
            statement="Its slope in x₂, backwards, is 1.716",
            judge=Exactly(1.716, within=0.0005),
            paper=Printed(1.716, "verified", "Table 3"),
        ),
        Claim(
            key="reverse",
            statement="It equals torch.autograd on random programs, on numbers and on arrays (largest difference)",
            judge=Exactly(0.0, within=1e-10),
            middle="max",
        ),
        Claim(
            key="cheap",
            statement="A whole gradient takes at most 5 times the function's operations, up to 10,000 inputs",
            judge=at_most(5.0),
            paper=Printed("less than 6", "verified", "section 3.2"),
            middle="max",
        ),
        Claim(
            key="growth",
            statement="Counted in functions, its cost does not grow with the number of inputs (slope on log-log axes)",
            judge=near(0.0, 0.05),
        ),
        Claim(
            key="swell",
            statement="The formula for the slope of l ← 4l(1 − l) doubles in length with every step, or more",
            judge=at_least(2.0),
        ),
        Claim(
            key="tape",
            statement="Its tape grows by the same three operations in every step",
            judge=Exactly(3),
            unit="operations",
        ),
    ),
    ablations=(
        Ablation("backwards", "the gradient is taken forwards, one pass per input", ("cheap", "growth")),
        Ablation("adding", "a number keeps only the last adjoint it receives, in place of the sum", ("reverse",)),
        Ablation("tape", "every step is written out in full", ("tape",)),
    ),
    minutes=Minutes(read=8, smoke=0.1, report=0.5),
    seeds=Seeds(smoke=1, report=5),
    code=("underhood.grad.dual:Dual.__mul__", "underhood.grad.value:Value.backward"),
    hard="""
A number that is used twice receives two adjoints, and both must have arrived from everywhere before it is handed on:
hence the order of the walk. The factor of 5 is that of programs, not of every operation: a quotient alone takes 6 in
our engine (1 forwards, 3 for its two slopes, 2 to apply them), a product 3, a sum 1, and 1 more for every second use of
a number, whose adjoint must be added up. Quotients are rare.
""",
    then="The same tape with arrays in place of numbers is PyTorch: pytorch-core.",
)


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
        found = [np.array(x.grad) for x in ours] + [np.zeros(t.shape) if t.grad is None else t.grad for t in tensors]
        truth = slopes_by_torch(program, [np.array(x) for x in point]) + slopes_by_torch(program, arrays)
        worst = max(worst, *(relative_error(a, b, floor=1.0) for a, b in zip(found, truth, strict=True)))
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
    found: dict[str, list[float]] = {}
    for name, f in (("valley", rosenbrock), ("mixed fluid", helmholtz)):
        for n in sizes[name]:
            point = [1.0 + 0.1 * math.sin(i) for i in range(n)]
            alone = cost_of_function(f, point)
            found.setdefault(f"{name}, forwards", []).append(n * cost_of_forward_pass(f, point) / alone)
            found.setdefault(f"{name}, backwards", []).append(cost_of_reverse(f, point) / alone)
    way = "forwards" if trial.ablated("backwards") else "backwards"
    trial.measure("cheap", max(max(found[f"{name}, {way}"]) for name in sizes))
    trial.measure("growth", float(np.polyfit(np.log(sizes["valley"]), np.log(found[f"valley, {way}"]), 1)[0]))
    trial.figure(
        Plot(
            title="What a gradient costs",
            x="inputs",
            y="operations, in those of the function",
            log_x=True,
            log_y=True,
            series=tuple(
                Series(name, tuple(map(float, sizes[name.split(",")[0]])), tuple(ratios))
                for name, ratios in found.items()
            ),
        )
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
    trial.figure(Grid(title="What one operation costs", head=head, rows=tuple(rows)))


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
    trial.figure(
        Plot(
            title="Formulas explode, tapes do not",
            x="steps of l ← 4l(1 − l)",
            y="operations",
            log_y=True,
            series=(
                Series("the slope's formula", places, tuple(slopes)),
                Series("the tape", places, tuple(map(float, tapes))),
            ),
        )
    )


def parents(node: Value) -> tuple[Value, ...]:
    return node._parents
