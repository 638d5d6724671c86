"""Directions in many dimensions: angles between random ones, and distances under random projection.

For two independent random directions in d dimensions, the cosine of their angle has the density

    f(u) ∝ (1 − u²)^((d − 3) / 2)     on −1 ≤ u ≤ 1

because that is how the surface of a sphere is spread along any axis. All else here follows from it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def random_directions(count: int, d: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Unit vectors, (count, d), every direction equally likely: normal components, divided by their length."""
    x = rng.standard_normal((count, d), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def cosines(directions_ND: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of all pairs of different unit vectors, each pair once."""
    gram = directions_ND @ directions_ND.T
    return gram[np.triu_indices(len(gram), 1)]


def mean_cosine(d: int) -> float:
    """E|cos| of two random directions: Γ(d/2) / (√π Γ((d+1)/2)), about sqrt(2 / (π d)); d is at least 2."""
    return math.exp(math.lgamma(d / 2) - math.lgamma((d + 1) / 2)) / math.sqrt(math.pi)


def share_beyond(d: int, cosine: float) -> float:
    """P(|cos| ≥ cosine) of two random directions in three dimensions or more, by Simpson's rule.

    About 2 exp(−d cosine² / 2) where that is small: it falls exponentially in the number of dimensions.
    """
    if cosine >= 1:
        return 0.0
    u = np.linspace(cosine, 1, 20_001)
    log_density = (d - 3) / 2 * np.log1p(-(np.minimum(u, 1 - 1e-16) ** 2))
    weights = np.where(np.arange(len(u)) % 2, 4.0, 2.0)
    weights[[0, -1]] = 1.0
    peak = log_density.max()
    area = float((weights * np.exp(log_density - peak)).sum()) * (1 - cosine) / 20_000 / 3
    log_whole = 0.5 * math.log(math.pi) + math.lgamma((d - 1) / 2) - math.lgamma(d / 2)
    return 2 * area * math.exp(peak - log_whole)


def until_close(d: int, cosine: float, rng: np.random.Generator, most: int = 100_000) -> int:
    """Draws random directions until two have |cos| ≥ cosine; the number drawn, the offending one included."""
    seen = np.empty((0, d), dtype=np.float32)
    while len(seen) < most:
        new = random_directions(max(16, len(seen) // 2), d, rng)
        both = np.concatenate([seen, new])
        near = np.abs(new @ both.T) >= cosine
        near[np.arange(len(both)) >= np.arange(len(seen), len(both))[:, None]] = False  # only those drawn before
        hit = near.any(axis=1)
        if hit.any():
            return len(seen) + int(hit.argmax()) + 1
        seen = both
    return most


def enough_dimensions(points: int, error: float) -> int:
    """Dimensions in which a random projection keeps all distances of that many points within 1 ± error.

    8 ln n / ε², the simple form of Johnson & Lindenstrauss's theorem. It does not depend on where the points come from.
    """
    return math.ceil(8 * math.log(points) / error**2)


def distances(x_ND: Floats) -> Floats:
    """Euclidean distances of all pairs of rows, each pair once."""
    squares = (x_ND**2).sum(axis=1)
    squared = squares[:, None] + squares - 2 * x_ND @ x_ND.T
    return np.sqrt(np.maximum(squared[np.triu_indices(len(x_ND), 1)], 0))


def projected(x_ND: Floats, dimensions: int, rng: np.random.Generator) -> Floats:
    """The points in fewer dimensions: their products with random vectors, lengths kept on average."""
    random = rng.standard_normal((x_ND.shape[1], dimensions), dtype=np.float32) / np.float32(dimensions**0.5)
    return (x_ND.astype(np.float32) @ random).astype(np.float64)


def distortion(x_ND: Floats, y_ND: Floats) -> float:
    """The largest relative error of a distance between two points of y against that in x."""
    return float(np.abs(distances(y_ND) / distances(x_ND) - 1).max())
