"""Hessian-vector products: reverse mode on dual numbers.

The Hessian H of a function of n inputs has n² entries, too many to write down. Its product with a vector v is the
derivative of the gradient in the direction of v. So the graph of `grad.value` is made of dual numbers that move along
v: the gradient that comes out carries H v in its dual components, for a small multiple of the cost of the function.

Source: Pearlmutter 1994 ("Fast exact multiplication by the Hessian"); Baydin et al. 2015, section 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from underhood.grad.dual import Dual, dual
from underhood.grad.value import Value


def hessian_vector(
    f: Callable[..., Any], point: Sequence[float], direction: Sequence[float]
) -> tuple[list[float], list[float]]:
    """The gradient of f at the point and the product of its Hessian with the direction, in one go."""
    if len(point) != len(direction):
        raise ValueError(f"the point has {len(point)} coordinates and the direction {len(direction)}")
    inputs = [Value(cast(float, Dual(x, v))) for x, v in zip(point, direction, strict=True)]
    f(*inputs).backward()
    gradients = [dual(x.grad) for x in inputs]
    return [g.value for g in gradients], [g.slope for g in gradients]
