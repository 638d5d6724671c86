"""Operation counts of derivatives: numbers that count the arithmetic done with them.

Seconds depend on the machine and on Python; operations don't. Each sum, product, quotient, power, change of sign and
elementary function counts as one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from underhood.grad.dual import Dual
from underhood.grad.elementary import apply
from underhood.grad.value import Value


def _counting(name: str) -> Any:
    def method(self: Counted, *others: Any) -> Counted:
        Counted.done[name.strip("_")] += 1
        return Counted(getattr(float, name)(self, *map(float, others)))

    return method


def _function(name: str) -> Any:
    def method(self: Counted) -> Counted:
        Counted.done[name] += 1
        return Counted(apply(name, float(self)))

    return method


class Counted(float):
    """A float that counts the operations it takes part in, all of them together in `done`."""

    done: ClassVar[Counter[str]] = Counter()

    __add__, __radd__, __sub__, __rsub__ = map(_counting, ("__add__", "__radd__", "__sub__", "__rsub__"))
    __mul__, __rmul__, __truediv__, __rtruediv__ = map(
        _counting, ("__mul__", "__rmul__", "__truediv__", "__rtruediv__")
    )
    __neg__, __pow__ = map(_counting, ("__neg__", "__pow__"))

    exp, log, sin, cos, tanh = map(_function, ("exp", "log", "sin", "cos", "tanh"))


def operations(work: Callable[[], Any]) -> int:
    """How many operations on counted numbers the work takes."""
    Counted.done.clear()
    work()
    return sum(Counted.done.values())


def cost_of_function(f: Callable[..., Any], point: Sequence[float]) -> int:
    """Operations of ``f(*point)``."""
    inputs = [Counted(x) for x in point]
    return operations(lambda: f(*inputs))


def cost_of_reverse(f: Callable[..., Any], point: Sequence[float]) -> int:
    """Operations of the function and its whole gradient in reverse mode (`grad.value`)."""
    inputs = [Value(Counted(x)) for x in point]
    return operations(lambda: f(*inputs).backward())


def cost_of_forward_pass(f: Callable[..., Any], point: Sequence[float]) -> int:
    """Operations of the function and its directional derivative (`grad.dual`); a gradient takes one pass per input."""
    inputs = [Dual(Counted(x), Counted(1.0)) for x in point]
    return operations(lambda: f(*inputs))


def cost_of_curvature(f: Callable[..., Any], point: Sequence[float]) -> int:
    """Operations of the gradient and the Hessian's product with one vector together (`grad.second`)."""
    inputs = [Value(cast(float, Dual(Counted(x), Counted(1.0)))) for x in point]
    return operations(lambda: f(*inputs).backward())
