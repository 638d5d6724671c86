"""Data, parallel hardware, automatic gradients: what each of the three did for deep learning."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.data.digits import digits, framed
from underhood.train.image_trainer import ImageTrainer, error

Floats = NDArray[np.float64]
Weights = list[Floats]


def run(trial: Trial) -> None:
    sizes = trial.by_scale(smoke=(30, 120, 480), report=(25, 50, 100, 200, 400, 800, 1400))
    errors: list[list[float]] = []
    for seed in trial.each_seed():
        if trial.wants("power", "slope"):
            train, test = (framed(half) for half in digits(seed))
            errors.append([learn(trial, train, test, n, sizes[0], seed) for n in trial.each(sizes, "size")])
        if trial.wants("speed", "same"):
            compare(trial, seed)
    if errors:
        for row in errors:
            slope, explained = fit(sizes, np.maximum(row, 0.5 / 359))
            trial.measure("slope", slope)
            trial.measure("power", explained)
    short = by_matrices if trial.ablated("autodiff") else by_autodiff
    trial.measure("lines", length(short) / length(by_matrices))
    if not trial.is_ablation:
        show(trial, sizes, np.array(errors))


def learn(trial: Trial, train, test, n: int, fewest: int, seed: int) -> float:
    """Error on new pictures after training on n pictures for the same number of steps, however many there are."""
    torch.manual_seed(seed)
    x, y = train
    at = torch.arange(n) % (fewest if trial.ablated("data") else n)
    conv = [nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU()]
    net = nn.Sequential(*conv, nn.Flatten(), nn.Linear(32 * 16, 10))
    steps, batch = trial.by_scale(smoke=240, report=800), 25
    how = ImageTrainer(passes=max(1, round(steps * batch / n)), batch=batch, lr=2e-3, adam=True)
    return error(how(net, (x[at], y[at]), trial.progress), *test)


def fit(sizes: tuple[int, ...], errors) -> tuple[float, float]:
    """The exponent of a power law through errors, and how much of their variation it explains (both in logs)."""
    x, y = np.log(sizes), np.log(np.asarray(errors, dtype=float))
    slope, level = np.polyfit(x, y, 1)
    rest, whole = ((y - slope * x - level) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return float(-slope), float(1 - rest / whole) if whole > 0 else 0.0


def compare(trial: Trial, seed: int) -> None:
    """Times one gradient of a net 64-32-10 on 64 pictures, written in three ways."""
    rng = np.random.default_rng(seed)
    train, _ = digits(seed)
    x, y = train.x[:64].reshape(64, 64).astype(np.float64), train.y[:64]
    weights = [rng.normal(0, 0.2, shape) for shape in ((64, 32), (32, 10))]
    slow, loop = timed(by_loop, weights, x, y, trial.by_scale(smoke=1, report=2))
    fast, matrices = timed(by_loop if trial.ablated("parallel") else by_matrices, weights, x, y, 30)
    trial.measure("speed", slow / fast)
    free = by_autodiff(weights, x, y)
    trial.measure(
        "same", max(float(np.abs(a - b).max()) for other in (matrices, free) for a, b in zip(loop, other, strict=True))
    )


def timed(way: Callable[[Weights, Floats, NDArray[np.int64]], Weights], weights: Weights, x: Floats, y, most: int):
    """Median seconds of one gradient, and the gradient."""
    gradient, seconds = way(weights, x, y), []
    for _ in range(most if way is not by_loop else min(most, 2)):
        begun = time.perf_counter()
        way(weights, x, y)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds)), gradient


def by_loop(weights: Weights, x: Floats, y: NDArray[np.int64]) -> Weights:
    w, v = (layer.tolist() for layer in weights)
    dw, dv = ([[0.0] * len(layer[0]) for _ in layer] for layer in (w, v))
    for picture, label in zip(x.tolist(), y.tolist(), strict=True):
        h = [math.tanh(sum(p * row[j] for p, row in zip(picture, w, strict=True))) for j in range(len(v))]
        z = [sum(a * row[k] for a, row in zip(h, v, strict=True)) for k in range(len(v[0]))]
        total = sum(math.exp(value) for value in z)
        dz = [math.exp(value) / total - (k == label) for k, value in enumerate(z)]
        for j, a in enumerate(h):
            pull = 0.0
            for k, slope in enumerate(dz):
                dv[j][k] += a * slope
                pull += slope * v[j][k]
            pull *= 1 - a * a
            for i, p in enumerate(picture):
                dw[i][j] += p * pull
    return [np.array(dw), np.array(dv)]


def by_matrices(weights: Weights, x: Floats, y: NDArray[np.int64]) -> Weights:
    w, v = weights
    h = np.tanh(x @ w)
    p = np.exp(h @ v)
    p /= p.sum(axis=1, keepdims=True)
    dz = p - np.eye(p.shape[1])[y]
    dv = h.T @ dz
    dh = dz @ v.T * (1 - h**2)
    dw = x.T @ dh
    return [dw, dv]


def by_autodiff(weights: Weights, x: Floats, y: NDArray[np.int64]) -> Weights:
    w, v = (torch.tensor(layer, requires_grad=True) for layer in weights)
    loss = F.cross_entropy(torch.tanh(torch.tensor(x) @ w) @ v, torch.tensor(y), reduction="sum")
    return [slope.numpy() for slope in torch.autograd.grad(loss, (w, v))]


def length(way: Callable[..., object]) -> int:
    """Lines of a function's body."""
    return sum(bool(line.strip()) for line in inspect.getsource(way).splitlines()[1:])


def show(trial: Trial, sizes: tuple[int, ...], errors: Floats) -> None:
    mean = errors.mean(axis=0)
    slope, _ = fit(sizes, mean)
    line = mean.mean() * 0 + np.exp(np.log(mean).mean()) * (np.array(sizes) / np.exp(np.log(sizes).mean())) ** -slope
    places = tuple(map(float, sizes))
    trial.plot(
        title=f"More data, fewer errors: about n to the −{slope:.2f}",
        x="pictures learned from",
        y="new ones wrong",
        log_x=True,
        log_y=True,
        series=(
            Series("measured", places, tuple(mean), tuple(errors.min(axis=0)), tuple(errors.max(axis=0))),
            Series("power law", places, tuple(map(float, line))),
        ),
    )
    ways = {"loop over numbers": by_loop, "matrices, gradient by hand": by_matrices, "automatic gradient": by_autodiff}
    estimated = trial.estimate("speed")
    times = ("1", f"{estimated.middle:,.0f}" if estimated else "", "")
    rows = tuple((name, length(way), speed) for (name, way), speed in zip(ways.items(), times, strict=True))
    trial.table(title="One gradient, three programs", head=("program", "lines", "times as fast"), rows=rows)
