"""Rumelhart, Hinton & Williams 1986: a network that learns what people are from who is related to whom."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Heat
from underhood.core.trial import Trial
from underhood.data.family import ENGLISH, GENERATION, ITALIAN, PEOPLE, RELATIONS, questions
from underhood.path.lib.sigmoid_layers import sigmoid, with_bias

Floats = NDArray[np.float64]
Inputs = tuple[Floats, Floats]


def run(trial: Trial) -> None:
    people, relations, answers = questions()
    trial.measure("cases", len(answers))
    trial.measure("triples", answers.sum())
    seeds = list(trial.seeds)
    nets = [started(seed) for seed in seeds]
    weights = [np.stack(layer) for layer in zip(*nets, strict=True)]
    held = np.stack([np.random.default_rng(seed).choice(len(answers), 4, replace=False) for seed in seeds])
    keep = np.ones((len(seeds), len(answers), 1))
    np.put_along_axis(keep, held[:, :, None], 0, axis=1)
    inputs = (people, relations)
    worst = difference_from_autograd([w[:2] for w in weights], inputs, answers, keep[:2])
    trial.measure("gradient", worst)
    if trial.wants("as_printed"):
        printed = [w.copy() for w in weights]
        train(trial, printed, inputs, answers, keep, rate=1, decay=0.002, sweeps=1500)
        for right in held_out_right(printed, inputs, answers, held):
            trial.measure("as_printed", right)
    train(trial, weights, inputs, answers, keep, rate=5, decay=0.0001, sweeps=8000)
    for right in held_out_right(weights, inputs, answers, held):
        trial.measure("held_out", right)
    nation = np.repeat([0.0, 1.0], 12)
    for codes in weights[0][:, :24]:
        trial.measure("nation", strongest(codes, nation))
        trial.measure("generation", strongest(codes, np.array(GENERATION * 2, dtype=float)))
    show(trial, weights, inputs, answers, held)


def started(seed: int) -> list[Floats]:
    """Weights of the five layers, their thresholds in the last row: 24 → 6, 12 → 6, 12 → 12, 12 → 6, 6 → 24."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-0.3, 0.3, (i + 1, o)) for i, o in ((24, 6), (12, 6), (12, 12), (12, 6), (6, 24))]


def forward(weights: list[Floats], inputs: Inputs) -> list[Floats]:
    """Activities of every layer for all questions; nets along the first axis."""
    person, relation = (sigmoid(with_bias(x) @ w) for x, w in zip(inputs, weights[:2], strict=True))
    layers = [np.concatenate([person, relation], axis=-1)]
    for w in weights[2:]:
        layers.append(sigmoid(with_bias(layers[-1]) @ w))
    return layers


def gradients(weights: list[Floats], inputs: Inputs, error: Floats, layers: list[Floats]) -> list[Floats]:
    """Backpropagation through all layers of dE/dy at the output."""
    moved: list[Floats] = []
    for w, below, above in zip(weights[:1:-1], layers[-2::-1], layers[:0:-1], strict=True):
        error = error * above * (1 - above)
        moved.insert(0, with_bias(below).swapaxes(-1, -2) @ error)
        error = error @ w[:, :-1].swapaxes(-1, -2)
    error = error * layers[0] * (1 - layers[0])
    return [with_bias(inputs[0]).T @ error[..., :6], with_bias(inputs[1]).T @ error[..., 6:], *moved]


def train(
    trial: Trial,
    weights: list[Floats],
    inputs: Inputs,
    answers: Floats,
    keep: Floats,
    *,
    rate: float,
    decay: float,
    sweeps: int,
) -> None:
    """Changes the weights in place by the paper's recipe with its rate times `rate`."""
    speed = [np.zeros_like(w) for w in weights]
    frozen = trial.ablated("codes")
    for sweep in range(sweeps):
        epsilon, alpha = (0.005, 0.5) if sweep < 20 else (0.01, 0.9)
        layers = forward(weights, inputs)
        y = layers[-1]
        settled = ((answers > 0.5) & (y > 0.8)) | ((answers < 0.5) & (y < 0.2))
        slopes = gradients(weights, inputs, np.where(settled, 0.0, y - answers) * keep, layers)
        for layer, (w, v, g) in enumerate(zip(weights, speed, slopes, strict=True)):
            if frozen and layer == 0:
                continue
            v *= alpha
            v -= rate * epsilon * g
            w += v
            w *= 1 - decay
        trial.progress(sweep / sweeps, "sweeps")


def held_out_right(weights: list[Floats], inputs: Inputs, answers: Floats, held: NDArray[np.int64]) -> list[int]:
    """Of how many held-out questions each net names exactly those who fit, as its likeliest ones."""
    y = forward(weights, inputs)[-1]
    right = []
    for net, places in enumerate(held):
        solved = 0
        for question in places:
            named = np.argsort(-y[net, question])[: int(answers[question].sum())]
            solved += set(named) == set(np.flatnonzero(answers[question]))
        right.append(solved)
    return right


def strongest(codes: Floats, meaning: Floats) -> float:
    """The largest correlation, sign aside, of any unit's weights with a property of the 24 people."""
    return max(abs(float(np.corrcoef(unit, meaning)[0, 1])) for unit in codes.T)


def difference_from_autograd(weights: list[Floats], inputs: Inputs, answers: Floats, keep: Floats) -> float:
    copies = [torch.tensor(w, requires_grad=True) for w in weights]

    def layer(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x @ w[:, :-1] + w[:, -1:])

    x = torch.cat([layer(torch.from_numpy(block), w) for block, w in zip(inputs, copies[:2], strict=True)], dim=-1)
    for w in copies[2:]:
        x = layer(x, w)
    (0.5 * (x - torch.from_numpy(answers)) ** 2 * torch.from_numpy(keep)).sum().backward()
    layers = forward(weights, inputs)
    ours = gradients(weights, inputs, (layers[-1] - answers) * keep, layers)
    return max(float(np.abs(g - c.grad.numpy()).max()) for g, c in zip(ours, copies, strict=True) if c.grad is not None)


def show(trial: Trial, weights: list[Floats], inputs: Inputs, answers: Floats, held: NDArray[np.int64]) -> None:
    best = int(np.argmax(held_out_right(weights, inputs, answers, held)))
    codes = weights[0][best, :24].T
    names = tuple(f"unit {u + 1}" for u in range(6))
    for title, block, people in (("English", codes[:, :12], ENGLISH), ("Italian", codes[:, 12:], ITALIAN)):
        values = tuple(tuple(map(float, row)) for row in block)
        trial.figure(
            Heat(title=f"{title} people as six numbers", values=values, rows=names, columns=tuple(people), signed=True)
        )
    y = forward(weights, inputs)[-1][best]
    rows = []
    for question in held[best]:
        person, relation = PEOPLE[int(inputs[0][question].argmax())], RELATIONS[int(inputs[1][question].argmax())]
        fits = np.flatnonzero(answers[question])
        named = np.argsort(-y[question])[: len(fits)]
        rows.append((f"{person}'s {relation}", ", ".join(PEOPLE[q] for q in named), ", ".join(PEOPLE[q] for q in fits)))
    trial.table(title="Questions it was never asked", head=("question", "its answer", "right"), rows=rows)
