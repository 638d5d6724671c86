"""t-SNE: points in many dimensions as points in the plane that keep their neighbours (van der Maaten & Hinton 2008).

Each point gives its neighbours a probability that falls with their distance, with a width of its own so that about
`perplexity` of them count. In the plane the probabilities come from a Student t distribution, whose long tail leaves
room between groups. Gradient descent makes the two agree. Distances between groups mean little; neighbourhoods do.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

EXAGGERATION, EARLY = 12.0, 250
"""The first steps draw neighbours together this much more strongly, so that groups form (section 3.4)."""

TINY = 1e-12


def tsne(
    points_ND: NDArray[np.floating],
    *,
    perplexity: float = 30.0,
    steps: int = 750,
    progress: Callable[[int, int], None] | None = None,
) -> Floats:
    """Places in the plane (N, 2), from the first two principal components on: the same points give the same map.

    Args:
        perplexity: how many neighbours count, about; less than a third of the points.
        progress: told the steps that are done, and all.

    Raises:
        ValueError: too few points for the perplexity.
    """
    count = len(points_ND)
    if count < 3 * perplexity:
        raise ValueError(f"{count} points are too few for a perplexity of {perplexity:g}: take a third of them at most")
    points_ND = np.asarray(points_ND, dtype=np.float64)
    centred_ND = points_ND - points_ND.mean(axis=0)
    _, _, axes = np.linalg.svd(centred_ND, full_matrices=False)
    map_N2 = centred_ND @ axes[:2].T
    map_N2 *= 1e-4 / max(float(map_N2[:, 0].std()), TINY)
    joint_NN = joint_probabilities(points_ND, perplexity)
    rate = max(count / EXAGGERATION / 4, 50.0)  # Belkina et al. 2019
    speed_N2, gain_N2 = np.zeros_like(map_N2), np.ones_like(map_N2)
    for step in range(steps):
        early = step < EARLY
        slope_N2 = gradient(joint_NN * (EXAGGERATION if early else 1.0), map_N2)
        same_way = np.sign(slope_N2) == np.sign(speed_N2)
        gain_N2 = np.maximum(np.where(same_way, gain_N2 * 0.8, gain_N2 + 0.2), 0.01)  # Jacobs 1988
        speed_N2 = (0.5 if early else 0.8) * speed_N2 - rate * gain_N2 * slope_N2
        map_N2 = map_N2 + speed_N2
        if progress is not None and step % 25 == 0:
            progress(step, steps)
    return map_N2 - map_N2.mean(axis=0)


def joint_probabilities(points_ND: Floats, perplexity: float) -> Floats:
    """How much two points are neighbours (N, N): symmetric, adds up to 1; each row's width found by bisection."""
    squares_NN = squared_distances(points_ND)
    count = len(squares_NN)
    precision_N1 = np.full((count, 1), 1.0 / max(float(np.median(squares_NN)), TINY))
    low_N1, high_N1 = np.zeros((count, 1)), np.full((count, 1), np.inf)
    given_NN = np.zeros_like(squares_NN)
    np.fill_diagonal(squares_NN, np.inf)
    nearest_N1 = squares_NN.min(axis=1, keepdims=True)
    finite_NN = np.where(np.isfinite(squares_NN), squares_NN - nearest_N1, 0.0)
    for _ in range(64):
        given_NN = np.exp(-precision_N1 * (squares_NN - nearest_N1))
        total_N1 = given_NN.sum(axis=1, keepdims=True)
        given_NN /= total_N1
        entropy_N1 = np.log(total_N1) + precision_N1 * (given_NN * finite_NN).sum(axis=1, keepdims=True)
        wide = entropy_N1 > np.log(perplexity)  # too many count: narrower
        low_N1, high_N1 = np.where(wide, precision_N1, low_N1), np.where(wide, high_N1, precision_N1)
        precision_N1 = np.where(np.isinf(high_N1), precision_N1 * 2, (low_N1 + np.minimum(high_N1, 1e300)) / 2)
    return np.maximum((given_NN + given_NN.T) / (2 * count), TINY)


def gradient(joint_NN: Floats, map_N2: Floats) -> Floats:
    """Derivative of the divergence KL(P ‖ Q) by each place in the plane (equation 5)."""
    closeness_NN = 1.0 / (1.0 + squared_distances(map_N2))
    np.fill_diagonal(closeness_NN, 0.0)
    pull_NN = (joint_NN - np.maximum(closeness_NN / closeness_NN.sum(), TINY)) * closeness_NN
    return 4.0 * (pull_NN.sum(axis=1, keepdims=True) * map_N2 - pull_NN @ map_N2)


def divergence(joint_NN: Floats, map_N2: Floats) -> float:
    """KL(P ‖ Q) in nats: how badly the plane keeps the neighbours."""
    closeness_NN = 1.0 / (1.0 + squared_distances(map_N2))
    np.fill_diagonal(closeness_NN, 0.0)
    shares_NN = np.maximum(closeness_NN / closeness_NN.sum(), TINY)
    off = ~np.eye(len(map_N2), dtype=bool)
    return float((joint_NN * np.log(joint_NN / shares_NN))[off].sum())


def squared_distances(points_ND: Floats) -> Floats:
    """Squared Euclidean distances between all pairs (N, N)."""
    norms_N = (points_ND**2).sum(axis=1)
    return np.maximum(norms_N[:, None] + norms_N[None, :] - 2 * points_ND @ points_ND.T, 0.0)
