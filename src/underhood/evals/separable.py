"""Linear separability of two sets of points by a plane through zero, decided with a proof either way.

Turn every point of class −1 around, ``a = y x``. A separating w has ``a · w > 0`` for all; there is one exactly if zero
is not in the convex hull of the a (Gordan 1873). So look for the mixture z ≥ 0 of points that comes nearest to zero:

    minimise |Σ z a|² + (1 − Σ z)²

by Lawson & Hanson's active-set method (1974). At the minimum, either ``Σ z a`` is zero, and the mixture proves that no
w exists, or it is itself a separating w: its margin to every point is at least ``1 − Σ z > 0``.
"""

from __future__ import annotations

from math import comb

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
TINY = 1e-11


def separation(x_NK: Floats, y_N: Floats) -> tuple[bool, Floats]:
    """Whether some w has y (w · x) > 0 for all points, and the proof.

    Returns:
        True and such weights w (K), or False and a mixture z ≥ 0 (N), not all zero, with Σ z y x = 0.

    Raises:
        ValueError: no points, or labels other than −1 and 1.
    """
    if not len(x_NK) or not np.isin(y_N, (-1, 1)).all():
        raise ValueError("separation needs points, each with a label of −1 or 1")
    a_NK = x_NK * y_N[:, None]
    a_NK = a_NK / np.maximum(np.linalg.norm(a_NK, axis=1, keepdims=True), 1e-300)
    gram = a_NK @ a_NK.T + 1.0  # the row of ones holds Σ z
    z = np.zeros(len(a_NK))
    used = np.zeros(len(a_NK), dtype=bool)
    for _ in range(30 * len(a_NK)):
        pull = 1 - gram @ z
        pull[used] = -np.inf
        nearest = int(pull.argmax())
        if pull[nearest] <= TINY or 1 - z.sum() <= TINY:
            break
        used[nearest] = True
        z = _best_of(gram, z, used)
    w = z @ a_NK
    if 1 - z.sum() > TINY and (a_NK @ w).min() > 0:
        return True, w
    assert np.linalg.norm(w) < 1e-4, f"neither separated nor mixed to zero: {np.linalg.norm(w):.1e}"
    return False, z


def _best_of(gram: Floats, z: Floats, used: NDArray[np.bool_]) -> Floats:
    """The best mixture of the points in use; those whose share would turn negative are taken out of use."""
    while True:
        at = np.flatnonzero(used)
        best = np.linalg.lstsq(gram[np.ix_(at, at)], np.ones(len(at)), rcond=None)[0]
        if best.min() > 0:
            z = np.zeros_like(z)
            z[at] = best
            return z
        negative = best <= 0
        step = (z[at][negative] / np.maximum(z[at][negative] - best[negative], 1e-300)).min()
        z = z.copy()
        z[at] += step * (best - z[at])
        used[at[z[at] <= 1e-14]] = False
        z[~used] = 0.0


def separable_labellings(points: int, weights: int) -> int:
    """T(N, K): how many of the 2^N labellings of N points in general position a unit of K weights can learn (Cover)."""
    return 2 * sum(comb(points - 1, k) for k in range(weights))
