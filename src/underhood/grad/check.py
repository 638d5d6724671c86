"""Gradient checking by central finite differences.

A derivative is what the quotient ``(f(x + h) − f(x − h)) / 2h`` tends to, and a computer can take it for a small h.
Two errors fight over the size of h: the quotient is off by about h² (what Taylor's series leaves out), and the function
values are rounded, which the division by h makes large again. They meet where h is about the cube root of the machine's
precision ε, with an error of about ε^⅔: far too coarse to train with, and all that is needed to find a mistake.

Source: Nocedal & Wright 2006 ("Numerical optimization"), section 8.1; Press et al. 2007, section 5.7.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def best_step(precision: float = float(np.finfo(np.float64).eps)) -> float:
    """The step of central differences where both errors are about equal: 6e-6 in float64, 5e-3 in float32."""
    return precision ** (1 / 3)


def central(f: Callable[[Floats], float], point: Floats, step: float | None = None) -> Floats:
    """The gradient of a function of an array by central differences, in two calls per element.

    Args:
        f: a scalar of an array of the point's shape; it must not keep or change the array.
        step: h for elements up to 1 in size, more for larger ones; None takes `best_step` of the point's precision.
    """
    return _differences(f, point, step or best_step(float(np.finfo(point.dtype).eps)), both=True)


def forward(f: Callable[[Floats], float], point: Floats, step: float) -> Floats:
    """The same from one side, ``(f(x + h) − f(x)) / h``: half the calls, and an error of about h in place of h²."""
    return _differences(f, point, step, both=False)


def relative_error(ours: Floats, theirs: Floats, *, floor: float = 1e-6) -> float:
    """The largest ``|a − b| / (|a| + |b|)``; where both are below `floor`, they count as `floor`.

    Differences can't tell a slope of 0 from one of 1e-12, hence the floor. A NaN anywhere gives infinity.
    """
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(f"gradients of shapes {ours.shape} and {theirs.shape} can't be compared")
    error = np.abs(ours - theirs) / np.maximum(np.abs(ours) + np.abs(theirs), floor)
    worst = float(error.max(initial=0.0))
    return worst if np.isfinite(worst) else float("inf")


def gradient_error(
    f: Callable[[Sequence[Floats]], float], gradients: Sequence[Floats], points: Sequence[Floats]
) -> float:
    """How far gradients with respect to several arrays are from central differences: the largest `relative_error`.

    A right gradient in float64 stays below 1e-6 unless the function has a kink or an edge within the step.
    """

    def of(number: int) -> Callable[[Floats], float]:
        return lambda x: f([*points[:number], x, *points[number + 1 :]])

    pairs = zip(gradients, points, strict=True)
    return max(relative_error(g, central(of(number), point)) for number, (g, point) in enumerate(pairs))


def quotient(f: Callable[[Any], Any], x: Any, step: float, *, both: bool = True) -> Any:
    """The difference quotient of a function of one number, or of each number of an array by itself."""
    h = x.dtype.type(step)
    up, down = x + h, x - h if both else x
    return (f(up) - f(down)) / (up - down)  # the distance that rounding left, not 2h


def _differences(f: Callable[[Floats], float], point: Floats, step: float, both: bool) -> Floats:
    slopes = np.empty_like(point)
    moved = point.copy()

    def along(at: tuple[int, ...], x: np.floating) -> float:
        moved[at] = x
        value = f(moved)
        moved[at] = point[at]
        return value

    for at in np.ndindex(point.shape):
        h = step * max(1.0, abs(float(point[at])))
        slopes[at] = quotient(partial(along, at), point[at], h, both=both)
    return slopes
