"""Reverse mode on single numbers: every result remembers what it came from, and blame flows back.

Each operation notes its inputs and how fast its result moves with each of them. Walking the graph once from the end to
the beginning, every number hands the blame that it has received on to its inputs, multiplied by those slopes: the chain
rule, each edge used once. So the whole gradient, of however many inputs, costs a small multiple of the function alone
(the cheap gradient principle), and memory for the graph.

Source: Baydin et al. 2015, section 3.2; Rumelhart, Hinton & Williams 1986. Karpathy's micrograd (2020) made the form
famous; here each node keeps its local slopes as numbers in place of a function that applies them.

What it does not do: arrays (`grad.tensor`). Derivatives of derivatives: `grad.second`.
"""

from __future__ import annotations

from underhood.grad.elementary import apply
from underhood.grad.order import inputs_first


class Value:
    """A number in a graph of numbers.

    Attributes:
        data: the number.
        grad: d(end) / d(this), after ``end.backward()``; calls add up.
    """

    __slots__ = ("_parents", "_slopes", "data", "grad")

    def __init__(self, data: float, parents: tuple[Value, ...] = (), slopes: tuple[float, ...] = ()):
        self.data, self.grad = data, 0.0
        self._parents, self._slopes = parents, slopes

    def __add__(self, other: Value | float) -> Value:
        other = value(other)
        return Value(self.data + other.data, (self, other), (1.0, 1.0))

    def __mul__(self, other: Value | float) -> Value:
        other = value(other)
        return Value(self.data * other.data, (self, other), (other.data, self.data))

    def __truediv__(self, other: Value | float) -> Value:
        other = value(other)
        quotient = self.data / other.data
        return Value(quotient, (self, other), (1.0 / other.data, -quotient / other.data))

    def __pow__(self, exponent: float) -> Value:
        return Value(self.data**exponent, (self,), (exponent * self.data ** (exponent - 1),))

    def __neg__(self) -> Value:
        return Value(-self.data, (self,), (-1.0,))

    def __sub__(self, other: Value | float) -> Value:
        other = value(other)
        return Value(self.data - other.data, (self, other), (1.0, -1.0))

    def __radd__(self, other: float) -> Value:
        return self + other

    def __rmul__(self, other: float) -> Value:
        return self * other

    def __rsub__(self, other: float) -> Value:
        return value(other) - self

    def __rtruediv__(self, other: float) -> Value:
        return value(other) / self

    def exp(self) -> Value:
        data = apply("exp", self.data)
        return Value(data, (self,), (data,))

    def log(self) -> Value:
        return Value(apply("log", self.data), (self,), (1.0 / self.data,))

    def sin(self) -> Value:
        return Value(apply("sin", self.data), (self,), (apply("cos", self.data),))

    def cos(self) -> Value:
        return Value(apply("cos", self.data), (self,), (-apply("sin", self.data),))

    def tanh(self) -> Value:
        data = apply("tanh", self.data)
        return Value(data, (self,), (1.0 - data * data,))

    def relu(self) -> Value:
        return Value(max(self.data, 0.0), (self,), (float(self.data > 0),))

    def backward(self) -> None:
        """Adds d(this) / d(v) to the `grad` of every number v that this one was made from."""
        blame: dict[Value, float] = {self: 1.0}
        for node in reversed(inputs_first(self, _parents)):
            received = blame.pop(node)
            node.grad = received if node.grad == 0.0 else node.grad + received
            for parent, slope in zip(node._parents, node._slopes, strict=True):
                part = received if slope == 1.0 else slope * received  # a sum passes blame on as it is
                blame[parent] = blame[parent] + part if parent in blame else part

    def __repr__(self) -> str:
        return f"Value({self.data:g}, grad={self.grad:g})"


def value(number: Value | float) -> Value:
    """A constant of the graph, unless it is a part of one already."""
    return number if isinstance(number, Value) else Value(number)


def _parents(node: Value) -> tuple[Value, ...]:
    return node._parents
