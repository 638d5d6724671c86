"""Ways down that know how the ground bends: L-BFGS, Newton's method, and Newton without a matrix.

Steepest descent depends on how the axes are scaled; on ground that bends κ times as much in one direction as in
another it needs some κ steps. Newton's step ``H⁻¹ g`` does not care about scales. L-BFGS guesses H⁻¹ from the last few
steps, conjugate gradients solve for the step from products of H with vectors (`grad.second` gives those).

Source: Bottou, Curtis & Nocedal 2018, section 6; Nocedal & Wright 2006, algorithms 7.4, 5.2 and 3.5.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Value = Callable[[Floats], float]
Gradient = Callable[[Floats], Floats]


def lbfgs(
    value: Value, gradient: Gradient, w: Floats, *, steps: int, memory: int = 10, tolerance: float = 0.0
) -> list[Floats]:
    """All iterates of limited-memory BFGS with a line search that keeps the Wolfe conditions.

    Args:
        memory: pairs of (step, change of gradient) that are kept; 0 is steepest descent with a line search.
        tolerance: ends when no element of the gradient is larger; it also ends when no step goes down any more.
    """
    g, path = gradient(w), [w]
    pairs: list[tuple[Floats, Floats]] = []
    for _ in range(steps):
        if np.abs(g).max() <= tolerance:
            break
        direction = -_two_loops(g, pairs)
        first = 1.0 if pairs else min(1.0, 1 / float(np.abs(g).sum()))
        moved = _wolfe(value, gradient, w, direction, first)
        if moved is None:
            break
        new_w, new_g = moved
        s, y = new_w - w, new_g - g
        if s @ y > 1e-12 * (y @ y) and memory:
            pairs = [*pairs, (s, y)][-memory:]
        w, g = new_w, new_g
        path.append(w)
    return path


def newton(gradient: Gradient, hessian: Callable[[Floats], Floats], w: Floats, *, steps: int) -> list[Floats]:
    """All iterates of ``w ← w − H⁻¹ g`` with full steps: quadratic convergence, once near enough."""
    path = [w]
    for _ in range(steps):
        w = w - np.linalg.solve(hessian(w), gradient(w))
        path.append(w)
    return path


def conjugate_gradients(
    product: Callable[[Floats], Floats], b: Floats, *, tolerance: float = 1e-12, most: int | None = None
) -> tuple[Floats, int]:
    """Solves ``H x = b`` for a positive definite H given by its products with vectors; x and how many it took.

    In exact arithmetic as many as H has different eigenvalues. Ends when the residual is `tolerance` times that of 0.
    """
    x, r = np.zeros_like(b), b
    p, size = r, float(r @ r)
    end = tolerance**2 * size
    for count in range(most or 10 * len(b)):
        if size <= end:
            return x, count
        hp = product(p)
        alpha = size / float(p @ hp)
        x, r = x + alpha * p, r - alpha * hp
        size, old = float(r @ r), size
        p = r + size / old * p
    return x, most or 10 * len(b)


def _two_loops(g: Floats, pairs: list[tuple[Floats, Floats]]) -> Floats:
    """The product of g with the inverse Hessian that the pairs make credible, without any matrix."""
    q = g.copy()
    weights = []
    for s, y in reversed(pairs):
        weights.append(float(s @ q) / float(s @ y))
        q -= weights[-1] * y
    if pairs:
        s, y = pairs[-1]
        q *= float(s @ y) / float(y @ y)
    for (s, y), weight in zip(pairs, reversed(weights), strict=True):
        q += (weight - float(y @ q) / float(s @ y)) * s
    return q


def _wolfe(
    value: Value, gradient: Gradient, w: Floats, direction: Floats, scale: float
) -> tuple[Floats, Floats] | None:
    """A point along the direction where F fell enough and its slope has flattened (the strong Wolfe conditions).

    Doubles the step until one is too long, then looks between: where the slopes at both ends say that it is zero, or
    in the middle if that is too near an end. None where rounding leaves nothing to gain.
    """
    here, slope = value(w), float(gradient(w) @ direction)
    if slope >= 0:
        return None
    low, low_slope, high = 0.0, slope, np.inf
    for _ in range(60):
        point = w + scale * direction
        g, there = gradient(point), value(point)
        along = float(g @ direction)
        # Near the minimum F no longer shows a fall that its slope still does (Hager & Zhang 2005).
        fell = there <= here + 1e-4 * scale * slope or (there <= here + 1e-12 * abs(here) and along <= -0.9998 * slope)
        if fell and abs(along) <= -0.9 * slope:
            return point, g
        if not fell or along > 0:
            high = scale
        else:
            low, low_slope = scale, along
        if np.isinf(high):
            scale = 2 * low
            continue
        guess = low - low_slope * (scale - low) / (along - low_slope) if along > 0 else np.nan
        margin = 0.05 * (high - low)
        scale = guess if low + margin < guess < high - margin else (low + high) / 2
    return None
