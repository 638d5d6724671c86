"""Test programs for automatic differentiation, random and from the literature, for any kind of number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

Program = list[tuple[str, int, int]]
"""Operations in order, each on two earlier results (a unary one uses the first only)."""

UNARY: dict[str, Callable[[Any], Any]] = {
    "tanh": lambda a: a.tanh(),
    "relu": lambda a: a.relu(),
    "exp": lambda a: a.tanh().exp(),  # kept small, or a tower of them overflows
    "log": lambda a: (a * a + 1.0).log(),
    "power": lambda a: (a * a + 0.5) ** 0.75,
    "minus": lambda a: 1.5 - a,
    "over": lambda a: 2.0 / (a * a + 1.0),
}
BINARY: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b.tanh(),
    "div": lambda a, b: a / (b * b + 1.0),
}


def random_program(generator: np.random.Generator, length: int) -> Program:
    """Operations and operands drawn evenly."""
    names = [*UNARY, *BINARY]
    kinds, first, second = (generator.integers(size, size=length).tolist() for size in (len(names), 100, 100))
    return [(names[kind], a, b) for kind, a, b in zip(kinds, first, second, strict=True)]


def run(program: Program, inputs: Sequence[Any]) -> Any:
    """The sum of the last four results; every operand may be used many times or not at all."""
    made = list(inputs)
    for name, first, second in program:
        a, b = made[first % len(made)], made[second % len(made)]
        made.append(UNARY[name](a) if name in UNARY else BINARY[name](a, b))
    total = made[-1]
    for node in made[-4:-1]:
        total = total + node
    return total


def survey(x1: Any, x2: Any) -> Any:
    """``ln x1 + x1 x2 − sin x2``, the running example of Baydin et al. 2015 (tables 2 and 3)."""
    return x1.log() + x1 * x2 - x2.sin()


def rosenbrock(*xs: Any) -> Any:
    """A curved valley in n dimensions; the work grows as n."""
    total = 0.0
    for a, b in pairwise(xs):
        along, across = 1.0 - a, b - a * a
        total = total + along * along + 100.0 * (across * across)
    return total


def helmholtz(*xs: Any) -> Any:
    """The energy of a mixed fluid, a classic of automatic differentiation (Griewank 1989); the work grows as n².

    ``Σ xᵢ log(xᵢ / (1 − bᵀx)) − xᵀA x / (√8 bᵀx) · log((1 + (1 + √2) bᵀx) / (1 + (1 − √2) bᵀx))``
    for Aᵢⱼ = 1 / (i + j + 1) and bᵢ = 1 / 2n.
    """
    size = 0.5 * sum(xs[1:], xs[0]) / len(xs)
    left = 1.0 - size
    mixing = sum(x * (x / left).log() for x in xs)
    pulls: Any = 0.0
    for i, x in enumerate(xs):
        row = sum(other / float(i + j + 1) for j, other in enumerate(xs))
        pulls = pulls + x * row
    root = math.sqrt(2)
    ratio: Any = (1.0 + (1 + root) * size) / (1.0 + (1 - root) * size)
    return mixing - pulls / (math.sqrt(8) * size) * ratio.log()


def logistic(x: Any, times: int) -> Any:
    """``l ← 4 l (1 − l)`` over and over: the survey's example of formulas that explode (table 1)."""
    for _ in range(times):
        x = 4.0 * x * (1.0 - x)
    return x
