"""Rumelhart, Hinton & Williams 1986: hidden units that learn, on the symmetry of six bits."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Frames, Plot, Series
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

Floats = NDArray[np.float64]
RATE, MOMENTUM, START, SWEEPS = 0.1, 0.9, 0.3, 10_000
X = np.array([[pattern >> bit & 1 for bit in range(6)] for pattern in range(64)], dtype=float)
Y = (X[:, ::-1] == X).all(axis=1).astype(float)[:, None]

MILESTONE = Milestone(
    stem="p1986_backprop",
    topics=("backprop-1986",),
    title="Backpropagation finds mirror symmetry",
    year=1986,
    question="Why does depth need backpropagation?",
    asks=(
        "why did backprop matter?",
        "what is backpropagation?",
        "what do hidden units learn?",
        "how does a network learn features by itself?",
    ),
    papers=(
        Paper(
            authors="D. E. Rumelhart, G. E. Hinton, R. J. Williams",
            year=1986,
            title="Learning representations by back-propagating errors",
            link="https://doi.org/10.1038/323533a0",
        ),
    ),
    idea=r"""
A perceptron's rule needs to know the right answer of every unit whose weights it changes. For units in the middle
nobody knows it. Backpropagation does not ask for an answer, only for a direction: by how much would the error change
if this unit's output changed a little? For an output unit that is simply $y - d$. For a unit $i$ before it the chain
rule adds up what its output does to all units $j$ that it feeds,

$$\frac{\partial E}{\partial y_i} = \sum_j w_{ij}\,\frac{\partial E}{\partial y_j}\,y_j\,(1 - y_j)$$

so the errors run backwards through the same weights that the activities ran forwards. Every weight then takes a step
against its own gradient, with some momentum from the step before:

$$\Delta w(t) = -\varepsilon\,\frac{\partial E}{\partial w} + \alpha\,\Delta w(t-1)$$

The paper's first example has six inputs, two hidden units and one output that shall say whether the six bits read the
same from both ends. No single unit can: each bit says nothing by itself. The two hidden units invent a code. Their
weights are equal and opposite about the middle, so that a symmetric pattern gives exactly zero; and in the paper's
net they stand in the ratio 1 : 2 : 4, so that no asymmetric pattern can cancel out. Nobody told them.
""",
    claims=(
        Claim(
            key="gradient",
            statement="The backward pass gives the gradient that torch.autograd gives (largest difference, float64)",
            judge=Exactly(0.0, within=1e-12),
            middle="max",
        ),
        Claim(
            key="solved",
            statement="More than half of all random starts come to solve it within 10,000 sweeps",
            judge=at_least(0.5),
        ),
        Claim(
            key="sweeps",
            statement="Of those that solve it within 3,000 sweeps, the median needs about as many as the paper's net",
            judge=near(1425, 400, shape=700),
            paper=Printed(1425, "verified", "Figure 1"),
            unit="sweeps",
        ),
        Claim(
            key="as_quick",
            statement="A net as quick as the paper's is no luck: at least one in ten is",
            judge=at_least(0.1),
        ),
        Claim(
            key="mirror",
            statement="In a net that solves it, weights are equal and opposite about the middle (largest relative sum)",
            judge=at_most(0.02, shape=0.1),
        ),
        Claim(
            key="ratio",
            statement="Nets that solve it have weights of 1 : 2 : 4 as in the paper, within 5 % (share of them)",
            judge=at_least(0.9),
            paper=Printed("3.6 : 7.2 : 14.2", "verified", "Figure 1"),
        ),
        Claim(
            key="codes",
            statement="They have found one of two codes that tell all patterns apart, 1 : 2 : 4 or 2 : 3 : 4",
            judge=at_least(0.9),
        ),
    ),
    ablations=(
        Ablation(
            "backward",
            "the error stops at the output unit: the hidden units keep their random weights",
            ("gradient", "solved", "mirror", "codes"),
        ),
    ),
    minutes=Minutes(read=8, smoke=0.1, report=1.0),
    seeds=Seeds(smoke=2, report=10),
    code=("underhood.path.p1986_backprop:gradients", "underhood.path.p1986_backprop:train"),
    hard="""
The paper shows one net. Here each seed trains many at once, and the whole distribution is shown: some starts end in a
minimum where the output is always off. The paper calls such minima rare where there are connections to spare; with two
hidden units there are none. Its 1 : 2 : 4 is not the only code: a quarter of the nets that solve it end at 2 : 3 : 4,
for which no signs cancel either. That was noticed in 24 nets before the claim about both was written; the report
judges it on 400 others. Solved means all 64 patterns on the right side of one half.
""",
    then="The same rule, with weights that are shared across a picture, reads digits: lenet-1989.",
)


NULLS = ("ratio",)


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
    found = (np.abs(size / size[:, :1] / codes - 1) < 0.05).all(axis=(2, 3)).mean(axis=1)
    return float(np.median(mirror)), float(found[0]), float(found[1])


def difference_from_autograd(weights: list[Floats], stop: bool) -> float:
    copies = [torch.tensor(w, requires_grad=True) for w in weights]
    ones = torch.ones(1, 64, 1, dtype=torch.float64)
    x, one = torch.from_numpy(with_bias(X)), ones.expand(len(weights[0]), -1, -1)
    output = torch.sigmoid(torch.cat([torch.sigmoid(x @ copies[0]), one], dim=-1) @ copies[1])
    (0.5 * (output - torch.from_numpy(Y)) ** 2).sum().backward()
    ours = gradients(weights, stop)
    return max(float(np.abs(g - c.grad.numpy()).max()) for g, c in zip(ours, copies, strict=True) if c.grad is not None)


def with_bias(x: Floats) -> Floats:
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


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
    trial.figure(
        Plot(
            title="How many random starts have solved it",
            x="sweeps over the 64 patterns",
            y="share of nets",
            series=(Series(f"{len(solved_N)} nets", tuple(map(float, edges)), tuple(share)),),
            levels=((share[14], f"after the paper's 1,425 sweeps: {share[14]:.0%}"),),
        )
    )
