"""Forward-mode automatic differentiation: dual numbers.

``a + b ε`` with ε² = 0 obeys the ordinary rules of arithmetic, and the coefficient of ε at the end is the derivative of
the whole program in one direction of its inputs: exact, no matter how the program loops or branches. One pass gives one
direction; a gradient of n inputs takes n passes, which is what reverse mode (`grad.value`) does away with.

Source: Baydin et al. 2015 ("Automatic differentiation in machine learning: a survey"), section 3.1 and table 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from underhood.grad.elementary import apply


@dataclass(frozen=True)
class Dual:
    """Dual number: a value and its directional derivative."""

    value: float
    slope: float = 0.0

    def __add__(self, other: Dual | float) -> Dual:
        other = dual(other)
        return Dual(self.value + other.value, self.slope + other.slope)

    def __mul__(self, other: Dual | float) -> Dual:
        other = dual(other)
        return Dual(self.value * other.value, self.slope * other.value + self.value * other.slope)

    def __truediv__(self, other: Dual | float) -> Dual:
        other = dual(other)
        quotient = self.value / other.value
        return Dual(quotient, (self.slope - quotient * other.slope) / other.value)

    def __pow__(self, exponent: float) -> Dual:
        return Dual(self.value**exponent, exponent * self.value ** (exponent - 1) * self.slope)

    def __neg__(self) -> Dual:
        return Dual(-self.value, -self.slope)

    def __sub__(self, other: Dual | float) -> Dual:
        return self + -dual(other)

    def __lt__(self, other: Dual | float) -> bool:
        return self.value < dual(other).value

    def __gt__(self, other: Dual | float) -> bool:
        return self.value > dual(other).value

    def __radd__(self, other: float) -> Dual:
        return self + other

    def __rmul__(self, other: float) -> Dual:
        return self * other

    def __rsub__(self, other: float) -> Dual:
        return dual(other) - self

    def __rtruediv__(self, other: float) -> Dual:
        return dual(other) / self

    def exp(self) -> Dual:
        value = apply("exp", self.value)
        return Dual(value, value * self.slope)

    def log(self) -> Dual:
        return Dual(apply("log", self.value), self.slope / self.value)

    def sin(self) -> Dual:
        return Dual(apply("sin", self.value), apply("cos", self.value) * self.slope)

    def cos(self) -> Dual:
        return Dual(apply("cos", self.value), -apply("sin", self.value) * self.slope)

    def tanh(self) -> Dual:
        value = apply("tanh", self.value)
        return Dual(value, (1 - value * value) * self.slope)

    def relu(self) -> Dual:
        return self if self.value > 0 else Dual(0.0)


def dual(number: Dual | float) -> Dual:
    """A constant, unless it is a dual number already."""
    return number if isinstance(number, Dual) else Dual(number)


def directional(f: Callable[..., Dual], point: Sequence[float], direction: Sequence[float]) -> tuple[float, float]:
    """``f(point)`` and its derivative along `direction`, in one pass: a Jacobian-vector product."""
    if len(point) != len(direction):
        raise ValueError(f"the point has {len(point)} coordinates and the direction {len(direction)}")
    end = dual(f(*map(Dual, point, direction)))
    return end.value, end.slope


def gradient(f: Callable[..., Dual], point: Sequence[float]) -> list[float]:
    """All n partial derivatives, in n passes."""
    units = ([float(i == j) for j in range(len(point))] for i in range(len(point)))
    return [directional(f, point, unit)[1] for unit in units]
