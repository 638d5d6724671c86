"""Rumelhart, Hinton & Williams 1986: hidden units that learn, on the symmetry of six bits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Frames, Plot, Series
from underhood.core.trial import Trial
from underhood.path.lib.sigmoid_layers import sigmoid, with_bias

Floats = NDArray[np.float64]
RATE, MOMENTUM, START, SWEEPS = 0.1, 0.9, 0.3, 10_000
X = np.array([[pattern >> bit & 1 for bit in range(6)] for pattern in range(64)], dtype=float)
Y = (X[:, ::-1] == X).all(axis=1).astype(float)[:, None]


def run(trial: Trial) -> None:
    quickest: list[float] = []
    frames: list[tuple[str, Plot]] = []
    nets = trial.by_scale(smoke=12, report=40)
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        weights = [rng.uniform(-START, START, (nets, *shape)) for shape in ((7, 2), (3, 1))]
        trial.measure("gradient", difference_from_autograd(weights, trial.ablated("backward")))
        solved_N, history = train(trial, weights)
        solved = np.isfinite(solved_N)
        trial.measure("solved", float(solved.mean()))
        in_time = solved_N[solved_N <= 3000]
        trial.measure("sweeps", float(np.median(in_time)) if len(in_time) else np.inf)
        trial.measure("as_quick", float((solved_N <= 1425).mean()))
        mirror, paper, other = shape_of(weights[0][solved])
        trial.measure("mirror", mirror)
        trial.measure("ratio", paper)
        trial.measure("codes", paper + other)
        quickest += solved_N.tolist()
        if not frames and solved.any():
            frames = drawn(history, int(np.argmin(solved_N)))
    show(trial, np.array(quickest), frames)


def forward(weights: list[Floats]) -> tuple[Floats, Floats]:
    """Hidden and output activities for all 64 patterns, for many nets at once: (nets, 64, 2) and (nets, 64, 1)."""
    hidden = sigmoid(with_bias(X) @ weights[0])
    return hidden, sigmoid(with_bias(hidden) @ weights[1])


def gradients(weights: list[Floats], stop: bool = False) -> list[Floats]:
    """The gradient of ½ Σ (y − d)² for both layers; `stop` lets no error pass back through the output unit."""
    hidden, output = forward(weights)
    error_out = (output - Y) * output * (1 - output)
    error_hidden = error_out @ weights[1][:, :2].swapaxes(1, 2) * hidden * (1 - hidden)
    if stop:
        error_hidden = np.zeros_like(error_hidden)
    return [with_bias(X).T @ error_hidden, with_bias(hidden).swapaxes(1, 2) @ error_out]


def train(trial: Trial, weights: list[Floats]) -> tuple[Floats, list[tuple[int, Floats]]]:
    """Changes the weights in place, sweep by sweep.

    Returns:
        The sweep at which each net had all patterns right for the first time (infinite for never), and the hidden
        weights at some sweeps.
    """
    speed = [np.zeros_like(w) for w in weights]
    solved_N = np.full(len(weights[0]), np.inf)
    history = []
    for sweep in range(SWEEPS + 1):
        if sweep % 25 == 0:
            right = ((forward(weights)[1] > 0.5) == (Y > 0.5)).all(axis=(1, 2))
            solved_N[right & np.isinf(solved_N)] = sweep
            trial.progress(sweep / SWEEPS, "sweeps")
        if sweep in (0, 200, 500, 1000, 1500, 2000, 3000, 5000, SWEEPS):
            history.append((sweep, weights[0].copy()))
        for w, v, g in zip(weights, speed, gradients(weights, trial.ablated("backward")), strict=True):
            v *= MOMENTUM
            v -= RATE * g
            w += v
    return solved_N, history


def shape_of(hidden: Floats) -> tuple[float, float, float]:
    """How far opposite weights are from cancelling, the shares of nets at 1 : 2 : 4 and at 2 : 3 : 4 (NaN: no net)."""
    if not len(hidden):
        return np.nan, np.nan, np.nan
    left, right = hidden[:, :3], hidden[:, 5:2:-1]
    size = np.sort((np.abs(left) + np.abs(right)) / 2, axis=1)
    mirror = np.abs(left + right).max(axis=(1, 2)) / size[:, -1].max(axis=1)
    codes = np.array([[1, 2, 4], [1, 1.5, 2]])[:, None, :, None]
    shares = (np.abs(size / size[:, :1] / codes - 1) < 0.05).all(axis=(2, 3)).mean(axis=1)
    return float(np.median(mirror)), float(shares[0]), float(shares[1])


def difference_from_autograd(weights: list[Floats], stop: bool) -> float:
    copies = [torch.tensor(w, requires_grad=True) for w in weights]
    ones = torch.ones(1, 64, 1, dtype=torch.float64)
    x, ones_column = torch.from_numpy(with_bias(X)), ones.expand(len(weights[0]), -1, -1)
    output = torch.sigmoid(torch.cat([torch.sigmoid(x @ copies[0]), ones_column], dim=-1) @ copies[1])
    (0.5 * (output - torch.from_numpy(Y)) ** 2).sum().backward()
    ours = gradients(weights, stop)
    return max(float(np.abs(g - c.grad.numpy()).max()) for g, c in zip(ours, copies, strict=True) if c.grad is not None)


def drawn(history: list[tuple[int, Floats]], net: int) -> list[tuple[str, Plot]]:
    places = tuple(float(i) for i in range(6))
    return [
        (
            f"sweep {sweep:,}",
            Plot(
                title="Weights from the six inputs",
                x="input",
                y="weight",
                kind="bars",
                names=tuple(str(i + 1) for i in range(6)),
                series=tuple(Series(f"hidden unit {u + 1}", places, tuple(weights[net, :6, u])) for u in (0, 1)),
            ),
        )
        for sweep, weights in history
    ]


def show(trial: Trial, solved_N: Floats, frames: list[tuple[str, Plot]]) -> None:
    if frames:
        trial.figure(Frames(title="Two hidden units find the code", control="training", frames=tuple(frames)))
    edges = np.arange(0, SWEEPS + 1, 100)
    share = [float((solved_N <= edge).mean()) for edge in edges]
    trial.plot(
        title="How many random starts have solved it",
        x="sweeps over the 64 patterns",
        y="share of nets",
        series=(Series(f"{len(solved_N)} nets", tuple(map(float, edges)), tuple(share)),),
        levels=((share[14], f"after the paper's 1,425 sweeps: {share[14]:.0%}"),),
    )
