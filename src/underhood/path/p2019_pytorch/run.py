"""Paszke et al. 2019: tensors that remember, and a model that is simply a program."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.digits import digits
from underhood.grad.check import relative_error
from underhood.grad.layers import Linear, cross_entropy, descend
from underhood.grad.tensor import Tensor

Floats = NDArray[np.float64]


def run(trial: Trial) -> None:
    curves: list[tuple[list[float], list[float]]] = []
    times = []
    rounds: set[int] = set()
    for seed in trial.each_seed():
        ours, theirs, seconds = train(seed, trial.by_scale(smoke=60, report=300), trial.ablated("whole"))
        curves.append((ours, theirs))
        times.append(seconds)
        trial.measure("losses", relative_error(np.array(ours), np.array(theirs), floor=1.0))
        apart, seen = loops(seed, trial.ablated("by_run"))
        rounds |= seen
        trial.measure("loops", apart)
        if trial.scale == "report":
            trial.measure("slower", seconds[0] / seconds[1])
    trial.measure("lengths", len(rounds))
    trial.measure("freed", left_over())
    trial.measure("refused", refused())
    trial.measure("fastest", 100 * (1 - 463 / 557))
    steps = tuple(map(float, range(len(curves[0][0]))))
    trial.plot(
        title="The same network on both engines",
        x="step",
        y="loss, nats",
        series=tuple(Series(name, steps, tuple(y)) for name, y in zip(("ours", "PyTorch"), curves[0], strict=True)),
        note="The lines lie on one another.",
    )
    micro = np.median(times, axis=0) * 1e6
    rows = (("ours, NumPy", float(micro[0])), ("PyTorch", float(micro[1])))
    trial.table(title="Time of a step", head=("engine", "microseconds"), rows=rows, note="64 pictures, one thread.")


def train(seed: int, steps: int, ablated: bool) -> tuple[list[float], list[float], tuple[float, float]]:
    """Losses of our engine and of PyTorch from the same start on the same pictures, and the median seconds per step."""
    generator = np.random.default_rng(seed)
    pictures, _ = digits(seed)
    x_ND, y_N = pictures.x.reshape(len(pictures), 64).astype(np.float64), pictures.y
    first, second = Linear(64, 128, generator), Linear(128, 10, generator)
    parameters = first.parameters + second.parameters
    copies = [torch.tensor(p.data, requires_grad=True) for p in parameters]
    ours, theirs, seconds = [], [], []
    for _ in range(steps):
        at = generator.integers(len(pictures), size=64)
        x_BD, y_B = x_ND[at], y_N[at]
        begun = time.perf_counter()
        hidden = first(Tensor(x_BD)).tanh()
        loss = cross_entropy(second(Tensor(hidden.data) if ablated else hidden), y_B)
        loss.backward()
        descend(parameters, 0.5)
        between = time.perf_counter()
        hidden = (torch.from_numpy(x_BD) @ copies[0] + copies[1]).tanh()
        other = F.cross_entropy(hidden @ copies[2] + copies[3], torch.from_numpy(y_B))
        other.backward()
        with torch.no_grad():
            for copy in copies:
                copy -= 0.5 * copy.grad  # type: ignore[operator]
                copy.grad = None
        seconds.append((between - begun, time.perf_counter() - between))
        ours.append(float(loss.data))
        theirs.append(float(other.detach()))
    medians = np.median(seconds, axis=0)
    return ours, theirs, (float(medians[0]), float(medians[1]))


def settle(x: Any, w: Any, size: Callable[[Any], float], rounds: int | None) -> tuple[Any, int]:
    """``x ← tanh(x W)`` until x moves by less than a thousandth; `rounds`, if given, are taken in any case."""
    for count in range(1, 200):
        new = (x @ w).tanh()
        moved, x = size(new - x), new
        if count == rounds or (rounds is None and moved < 1e-3):
            return x, count
    return x, 200


def loops(seed: int, ablated: bool) -> tuple[float, set[int]]:
    """The largest difference of gradients through `settle`, and the numbers of rounds that it took."""
    generator = np.random.default_rng(seed)
    worst, seen, recorded = 0.0, set(), None
    for scale in np.linspace(0.1, 0.9, 9):
        w, x = generator.standard_normal((4, 4)), generator.standard_normal((1, 4))
        w *= scale / np.abs(np.linalg.eigvals(w)).max()
        mine, theirs = Tensor(w), torch.tensor(w, requires_grad=True)
        end, rounds = settle(Tensor(x), mine, lambda t: float(np.abs(t.data).max()), recorded)
        recorded = rounds if ablated else None
        other, _ = settle(torch.from_numpy(x), theirs, lambda t: float(t.detach().abs().max()), None)
        (end * end).sum().backward()
        (other * other).sum().backward()
        assert mine.grad is not None
        assert theirs.grad is not None
        worst = max(worst, relative_error(mine.grad, theirs.grad.numpy(), floor=1.0))
        seen.add(rounds)
    return worst, seen


def left_over() -> int:
    """How many tensors of a trace of 100 operations are left when its end is deleted."""
    w = Tensor(np.ones((3, 3)))
    gc.collect()
    gc.disable()
    try:
        before = alive()
        x = w
        for _ in range(100):
            x = (x @ w).tanh() + 1.0
        x.sum().backward()
        assert alive() >= before + 100
        del x
        return alive() - before
    finally:
        gc.enable()


def alive() -> int:
    return sum(type(thing) is Tensor for thing in gc.get_objects())


def refused() -> int:
    x = torch.ones(3, requires_grad=True)
    y = x.exp()
    z = (y * y).sum()
    y.add_(1)  # the product's slopes are gone
    try:
        z.backward()
    except RuntimeError as error:
        return int("modified by an inplace operation" in str(error))
    return 0
