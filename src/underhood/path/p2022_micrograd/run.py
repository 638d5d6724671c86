"""Karpathy's micrograd: the README's expression, and two half moons told apart by a network of single numbers."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.grad.order import topological_order
from underhood.grad.tensor import Tensor
from underhood.grad.value import Value
from underhood.path.lib.half_moons import DEMO_SEED, draw

Floats = NDArray[np.float64]
STEPS, DECAY = 100, 1e-4


def run(trial: Trial) -> None:
    back = forgetful if trial.ablated("sum") else Value.backward
    if trial.wants("g", "da", "db"):
        a, b = Value(-4.0), Value(2.0)
        end = readme(a, b)
        back(end)
        for key, number in (("g", end.data), ("da", a.grad), ("db", b.grad)):
            trial.measure(key, number)
        if not trial.is_ablation:
            theirs = [torch.tensor(number, dtype=torch.float64, requires_grad=True) for number in (-4.0, 2.0)]
            slopes = torch.autograd.grad(readme(*theirs), theirs)
            off = max(abs(ours.grad - slope.item()) for ours, slope in zip((a, b), slopes, strict=True))
            trial.oracle("torch.autograd on the same expression", off < 1e-9, f"off by {off:.1e}")
    if trial.wants("first", "last", "parameters"):
        x, y, weights = draw(DEMO_SEED)
        trial.measure("parameters", sum(weight.size for weight in weights))
        weights, losses, _ = descend(trial, x, y, weights)
        trial.measure("first", losses[0])
        trial.measure("last", losses[-1])
        show(trial, x, y, weights, losses)
    for seed in trial.each_seed():
        x, y, weights = draw(seed)
        if trial.wants("scalars"):
            points = trial.by_scale(smoke=10, report=100)
            trial.measure("scalars", difference(x[:points], y[:points], weights, back))
        if trial.wants("separated"):
            trial.measure("separated", descend(trial, x, y, weights)[2])


def readme(a: Any, b: Any) -> Any:
    """The expression of micrograd's README, for any kind of number."""
    c = a + b
    d = a * b + b**3
    c = c + c + 1
    c = c + 1 + c + (-a)
    d = d + d * 2 + (b + a).relu()
    d = d + 3 * d + (b - a).relu()
    e = c - d
    f = e**2
    return f / 2.0 + 10.0 / f


def scores(x: Floats, weights: list[Tensor], linear: bool = False) -> Tensor:
    """The network's scores of all points, (points, 1)."""
    h = Tensor(x)
    for layer in range(0, len(weights), 2):
        h = h @ weights[layer] + weights[layer + 1]
        if layer + 2 < len(weights) and not linear:
            h = h.relu()
    return h


def loss(of_points: Tensor, y: Floats, weights: list[Tensor]) -> Tensor:
    """The mean margin loss and the pull to small weights."""
    total = (1.0 - of_points * y).relu().sum() * (1 / len(y))
    for weight in weights:
        total = total + (weight * weight).sum() * DECAY
    return total


def descend(trial: Trial, x: Floats, y: Floats, weights: list[Floats]) -> tuple[list[Floats], list[float], float]:
    """The weights after 100 steps, the loss before each step, and the share of right points before the last."""
    losses, right = [], 0.0
    for step in range(STEPS):
        tensors = [Tensor(weight) for weight in weights]
        of_points = scores(x, tensors, linear=trial.ablated("relu"))
        end = loss(of_points, y, tensors)
        losses.append(float(end.data))
        right = float((of_points.data * y > 0).mean())
        end.backward()
        rate = (1.0 - 0.9 * step / STEPS) * (0.1 if trial.ablated("relu") else 1.0)  # linear units would diverge
        weights = [weight - rate * cast(Floats, t.grad) for weight, t in zip(weights, tensors, strict=True)]
    return weights, losses, right


def difference(x: Floats, y: Floats, weights: list[Floats], back: Any) -> float:
    """The largest difference between the gradients of single numbers and of arrays."""
    tensors = [Tensor(weight) for weight in weights]
    loss(scores(x, tensors), y, tensors).backward()
    numbers = [[[Value(number) for number in row] for row in weight.tolist()] for weight in weights]
    total = Value(0.0)
    for point, label in zip(x.tolist(), y[:, 0].tolist(), strict=True):
        h: list[Any] = point
        for layer in range(0, len(numbers), 2):
            sums = list(numbers[layer + 1][0])
            for value, row in zip(h, numbers[layer], strict=True):
                sums = [sum_ + weight * value for sum_, weight in zip(sums, row, strict=True)]
            h = [sum_.relu() for sum_ in sums] if layer + 2 < len(numbers) else sums
        total = total + (1.0 - h[0] * label).relu() * (1 / len(y))
    every = [number for weight in numbers for row in weight for number in row]
    for number in every:
        total = total + number * number * DECAY
    back(total)
    by_arrays = np.concatenate([cast(Floats, t.grad).ravel() for t in tensors])
    return float(np.abs(np.array([number.grad for number in every]) - by_arrays).max())


def forgetful(end: Value) -> None:
    """The walk back, but a number's gradient is overwritten where it should be added up."""
    end.grad = 1.0
    for node in reversed(topological_order(end, lambda node: node._parents)):
        for parent, local in zip(node._parents, node._local_gradients, strict=True):
            parent.grad = local * node.grad


def show(trial: Trial, x: Floats, y: Floats, weights: list[Floats], losses: list[float]) -> None:
    across, down = np.linspace(-1.75, 2.75, 37), np.linspace(1.75, -1.25, 25)
    grid = np.array([[(u, v) for u in across] for v in down]).reshape(-1, 2)
    table = np.tanh(scores(grid, [Tensor(weight) for weight in weights]).data.reshape(len(down), -1))
    trial.plot(
        title="The demo's training",
        x="step",
        y="loss",
        log_y=True,
        series=[Series("loss", tuple(map(float, range(STEPS))), tuple(losses))],
    )
    trial.plot(
        title="Two half moons with noise",
        x="first coordinate",
        y="second",
        kind="points",
        series=[
            Series(name, tuple(x[y[:, 0] == side, 0]), tuple(x[y[:, 0] == side, 1]))
            for name, side in (("one class", -1), ("the other", 1))
        ],
    )
    trial.figure(
        Heat(
            title="What the network says about the plane",
            values=tuple(map(tuple, table.round(3).tolist())),
            rows=tuple(f"{v:.2f}" for v in down),
            columns=tuple(f"{u:.2f}" for u in across),
            signed=True,
            note="tanh of the score; the border is where it changes its sign.",
        )
    )
