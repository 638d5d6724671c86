"""Symbolic differentiation, and why its formulas explode (expression swell).

The rules for sums and products make a formula of a formula. Written out, the derivative of a program of n steps can be
exponentially long, for every product repeats both of its factors (*expression swell*). The same rules applied to
numbers, step by step, never write anything twice (`grad.dual`, `grad.value`).

Source: Baydin et al. 2015, section 2.2 and table 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property


class Formula:
    """A formula of sums, differences and products, held as a graph, so that even one too long to write can be measured.

    Attributes:
        sign: ``+``, ``-``, ``*``, or the name or number that a leaf is.
        length: operations in it when it is written out.
    """

    def __init__(self, sign: str, *parts: Formula):
        self.sign, self.parts = sign, parts
        self.length: int = sum(operand.length for operand in parts) + bool(parts)

    def __add__(self, other: Formula | float) -> Formula:
        return Formula("+", self, formula(other))

    def __sub__(self, other: Formula | float) -> Formula:
        return Formula("-", self, formula(other))

    def __mul__(self, other: Formula | float) -> Formula:
        return Formula("*", self, formula(other))

    def __radd__(self, other: float) -> Formula:
        return formula(other) + self

    def __rsub__(self, other: float) -> Formula:
        return formula(other) - self

    def __rmul__(self, other: float) -> Formula:
        return formula(other) * self

    @cached_property
    def slope(self) -> Formula:
        """The derivative with respect to the only name in it, by the rules and with nothing left out but zeros."""
        if not self.parts:
            return formula(float(self.sign.isidentifier()))
        a, b = self.parts
        if self.sign == "*":
            return _sum("+", _product(a.slope, b), _product(a, b.slope))
        return _sum(self.sign, a.slope, b.slope)

    def at(self, values: Mapping[str, float]) -> float:
        """Its value, each part worked out once."""
        return self._at(values, {})

    def _at(self, values: Mapping[str, float], known: dict[Formula, float]) -> float:
        if self not in known:
            if not self.parts:
                known[self] = values[self.sign] if self.sign.isidentifier() else float(self.sign)
            else:
                a, b = (operand._at(values, known) for operand in self.parts)
                known[self] = {"+": a + b, "-": a - b, "*": a * b}[self.sign]
        return known[self]

    def __str__(self) -> str:
        """Written out: `length` operations long, so ask that first."""
        return f"({self.parts[0]} {self.sign} {self.parts[1]})" if self.parts else self.sign


def formula(number: Formula | float) -> Formula:
    """A constant, unless it is a formula already."""
    return number if isinstance(number, Formula) else Formula(f"{number:g}")


def _product(a: Formula, b: Formula) -> Formula:
    if "0" in (a.sign, b.sign):
        return formula(0)
    return b if a.sign == "1" else a if b.sign == "1" else a * b


def _sum(sign: str, a: Formula, b: Formula) -> Formula:
    if b.sign == "0":
        return a
    return b if a.sign == "0" and sign == "+" else Formula(sign, a, b)
