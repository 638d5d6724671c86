"""Rosenblatt 1958: a unit that corrects its weights when it is wrong, and what it can never learn."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial

Floats = NDArray[np.float64]
SIDE, UNITS, WIRES = 20, 512, 40
TRAIN, TEST = 10_000, 2_000
MARGINS = (0.02, 0.05, 0.1, 0.2)
XOR = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]], dtype=float)  # the last input is the threshold
XOR_Y = np.array([-1, 1, 1, -1], dtype=float)


def run(trial: Trial) -> None:
    moves = not trial.ablated("correction")
    rows, bounds = [], []
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        counted = []
        for gamma in MARGINS:
            x, y, margin = separable(rng, gamma)
            _, errors, _ = learn(
                x, y, sweeps=trial.by_scale(smoke=2000, report=4000) if moves else 500, moves=moves, rng=rng
            )
            counted.append((sum(errors), (np.linalg.norm(x, axis=1).max() / margin) ** 2))
        bounds.append(counted)
        trial.measure("bound", max(mistakes / bound for mistakes, bound in counted))
        _, errors, period = learn(XOR, XOR_Y, sweeps=1000, moves=moves, rng=rng)
        trial.measure("xor", sum(error > 0 for error in errors))
        trial.measure("cycle", period or np.inf)
        units = association_units(rng, 3, 3) if not trial.ablated("units") else lambda x: x
        trial.measure("xor_units", learn(units(XOR), XOR_Y, sweeps=1000, moves=moves, rng=rng)[1][-1])
        if not trial.wants("shapes", "units_help"):
            continue
        pictures, y = squares_and_circles(rng, TRAIN + TEST)
        raw = np.hstack([pictures, np.ones((len(y), 1))])
        wired = raw if trial.ablated("units") else association_units(rng, SIDE * SIDE, WIRES)(pictures)
        right = []
        for x in (raw, wired):
            w, _, _ = learn(x[:TRAIN], y[:TRAIN], sweeps=20, moves=moves, rng=rng)
            right.append(float((np.sign(x[TRAIN:] @ w) == y[TRAIN:]).mean()))
        rows.append(right)
        trial.measure("shapes", right[1])
        trial.measure("units_help", right[1] - right[0])
    show(trial, np.array(bounds), rows)


def learn(
    x: Floats, y: Floats, *, sweeps: int, moves: bool, rng: np.random.Generator
) -> tuple[Floats, list[int], int | None]:
    """Rosenblatt's rule, example by example, until a sweep makes no mistake.

    Returns:
        The weights, the mistakes of each sweep, and after how many sweeps the weights were where they had been before
        (from then on everything repeats), or None.
    """
    w = np.zeros(x.shape[1]) if moves else rng.standard_normal(x.shape[1])
    errors: list[int] = []
    seen = {w.tobytes(): 0}
    period = None
    for sweep in range(1, sweeps + 1):
        wrong = 0
        for example, label in zip(x, y, strict=True):
            if label * (example @ w) <= 0:
                wrong += 1
                if moves:
                    w = w + label * example
        errors.append(wrong)
        if not wrong:
            break
        if period is None and w.tobytes() in seen and moves:
            period = sweep - seen[w.tobytes()]
        seen[w.tobytes()] = sweep
    return w, errors, period


def separable(rng: np.random.Generator, gamma: float) -> tuple[Floats, Floats, float]:
    """300 unit vectors in 20 dimensions, none within gamma of a hidden plane, and the margin that they have to it."""
    direction = rng.standard_normal(20)
    direction /= np.linalg.norm(direction)
    x = rng.standard_normal((4000, 20))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    x = x[np.abs(x @ direction) >= gamma][:300]
    return x, np.sign(x @ direction), float(np.abs(x @ direction).min())


def association_units(rng: np.random.Generator, inputs: int, wires: int):
    """512 units, each wired to `wires` inputs at random with weight +1 or −1; it fires above a random threshold."""
    weights = np.zeros((inputs, UNITS))
    for unit in range(UNITS):
        weights[rng.choice(inputs, wires, replace=False), unit] = rng.choice((-1.0, 1.0), wires)
    threshold = rng.uniform(0, min(4, wires / 2), UNITS)
    return lambda x: np.hstack([(x @ weights > threshold).astype(float), np.ones((len(x), 1))])


def squares_and_circles(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Filled squares (+1) and circles (−1) of the same area at random places of a 20 × 20 retina."""
    row, column = np.mgrid[:SIDE, :SIDE] + 0.5
    y = rng.choice((-1.0, 1.0), count)
    half = rng.uniform(3, 5, count)
    radius = np.where(y > 0, half, half * 2 / np.sqrt(np.pi))
    a, b = (rng.uniform(radius, SIDE - radius) for _ in range(2))
    across, down = (np.abs(grid[None] - at[:, None, None]) for grid, at in ((column, a), (row, b)))
    size = radius[:, None, None]
    inside = np.where(y[:, None, None] > 0, np.maximum(across, down) < size, across**2 + down**2 < size**2)
    return inside.reshape(count, -1).astype(float), y


def show(trial: Trial, bounds: Floats, rows: list[list[float]]) -> None:
    mean = bounds.mean(axis=0)
    trial.plot(
        title="Far fewer mistakes than the bound allows",
        x="margin γ",
        y="mistakes until the last one",
        log_x=True,
        log_y=True,
        series=(
            Series("made", MARGINS, tuple(mean[:, 0]), tuple(bounds[:, :, 0].min(0)), tuple(bounds[:, :, 0].max(0))),
            Series("(R/γ)²", MARGINS, tuple(mean[:, 1]), paper=True),
        ),
    )
    pictures, y = squares_and_circles(np.random.default_rng(0), 12)
    shown = pictures[[int(np.flatnonzero(y > 0)[0]), int(np.flatnonzero(y < 0)[0])]].reshape(2, SIDE, SIDE)
    names = tuple(str(n) for n in range(SIDE))
    for title, picture in zip(("A square", "A circle"), shown, strict=True):
        trial.figure(Heat(title=title, values=tuple(map(tuple, picture)), rows=names, columns=names))
    if not rows:
        return
    raw, units = np.array(rows).mean(axis=0)
    trial.table(
        title="New pictures told apart",
        head=("weights see", "right"),
        rows=(("the 400 photocells", f"{raw:.1%}"), ("512 random units", f"{units:.1%}")),
    )
