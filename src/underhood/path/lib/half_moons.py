"""Two half moons and a network's first weights, drawn with the same random numbers as micrograd's demo."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SIZES = (2, 16, 16, 1)
DEMO_SEED = 1337


def draw(seed: int) -> tuple[Floats, Floats, list[Floats]]:
    """Points (100, 2), labels ±1 (100, 1) and weights, from the same random numbers as the demo's.

    The points are scikit-learn's `make_moons(100, noise=0.1)`: two half circles, shuffled, then noise.
    """
    generator, of_weights = np.random.RandomState(seed), random.Random(seed)
    angle = np.linspace(0, np.pi, 50)
    outer, inner = (np.cos(angle), np.sin(angle)), (1 - np.cos(angle), 1 - np.sin(angle) - 0.5)
    x = np.concatenate([np.stack(outer, axis=1), np.stack(inner, axis=1)])
    y = np.repeat([-1.0, 1.0], 50)[:, None]
    order = np.arange(100)
    generator.shuffle(order)
    weights: list[Floats] = []
    for inputs, outputs in pairwise(SIZES):
        rows = [[of_weights.uniform(-1, 1) for _ in range(inputs)] for _ in range(outputs)]
        weights += [np.array(rows).T, np.zeros((1, outputs))]
    return x[order] + generator.normal(scale=0.1, size=x.shape), y[order], weights
