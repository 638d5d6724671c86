"""Reverse-mode automatic differentiation on scalars.

Each operation records its inputs and its local gradient with respect to each of them. The backward pass walks the graph
once from the end to the beginning: every node multiplies its adjoint by its local gradients and adds the products to
the adjoints of its inputs (the chain rule, each edge used once). The whole gradient, of however many inputs, costs a
small multiple of the function alone (the cheap gradient principle), and memory for the graph.

Source: Baydin et al. 2015, section 3.2; Rumelhart, Hinton & Williams 1986. Karpathy's micrograd (2020) made the form
famous; here each node keeps its local gradients as numbers in place of a function that applies them.

What it does not do: arrays (`grad.tensor`). Derivatives of derivatives: `grad.second`.
"""

from __future__ import annotations

from underhood.grad.elementary import apply
from underhood.grad.order import topological_order


class Value:
    """A scalar node of the computation graph.

    Attributes:
        data: the number.
        grad: d(end) / d(this), after ``end.backward()``; calls add up.
    """

    __slots__ = ("_local_gradients", "_parents", "data", "grad")

    def __init__(self, data: float, parents: tuple[Value, ...] = (), local_gradients: tuple[float, ...] = ()):
        self.data, self.grad = data, 0.0
        self._parents, self._local_gradients = parents, local_gradients

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
        adjoint: dict[Value, float] = {self: 1.0}
        for node in reversed(topological_order(self, _parents)):
            received = adjoint.pop(node)
            node.grad = received if node.grad == 0.0 else node.grad + received
            for parent, local in zip(node._parents, node._local_gradients, strict=True):
                contribution = received if local == 1.0 else local * received  # a sum passes its adjoint on as it is
                adjoint[parent] = adjoint[parent] + contribution if parent in adjoint else contribution

    def __repr__(self) -> str:
        return f"Value({self.data:g}, grad={self.grad:g})"


def value(number: Value | float) -> Value:
    """A constant of the graph, unless it is a part of one already."""
    return number if isinstance(number, Value) else Value(number)


def _parents(node: Value) -> tuple[Value, ...]:
    return node._parents
