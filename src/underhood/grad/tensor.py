"""Reverse-mode automatic differentiation on NumPy arrays: a small PyTorch.

The graph is that of `grad.value`. A node holds an array; in place of one local gradient per input it keeps a
vector-Jacobian product: a function from the adjoint of its result to the adjoint of that input. Broadcasting repeats an
input along some axes, so the adjoint is summed over those axes again.

What it does not do: in-place changes, other devices, derivatives of derivatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from underhood.grad.order import topological_order

Array = NDArray[Any]
Vjp = Callable[[Array], Array]
"""Vector-Jacobian product: from the adjoint of a result to the adjoint of one input."""
Axis = int | tuple[int, ...] | None


class Tensor:
    """An array in a graph of arrays.

    Attributes:
        data: the array.
        grad: d(end) / d(this) after ``end.backward()``, of the array's shape; None before. Calls add up.
    """

    __array_priority__ = 100  # NumPy leaves `array * tensor` to us

    def __init__(self, data: Array | Sequence[Any] | float, inputs: Sequence[tuple[Tensor, Vjp]] = ()):
        self.data = np.asarray(data)
        if self.data.dtype.kind != "f":
            self.data = self.data.astype(np.float64)
        self.grad: Array | None = None
        self._inputs = inputs

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    def __add__(self, other: Operand) -> Tensor:
        a, b = self, tensor(other)
        return Tensor(a.data + b.data, [(a, _to(a)), (b, _to(b))])

    def __mul__(self, other: Operand) -> Tensor:
        a, b = self, tensor(other)
        to_a, to_b = _to(a), _to(b)
        return Tensor(a.data * b.data, [(a, lambda g: to_a(g * b.data)), (b, lambda g: to_b(g * a.data))])

    def __truediv__(self, other: Operand) -> Tensor:
        return self * tensor(other) ** -1.0

    def __pow__(self, exponent: float) -> Tensor:
        return Tensor(self.data**exponent, [(self, lambda g: g * (exponent * self.data ** (exponent - 1)))])

    def __neg__(self) -> Tensor:
        return Tensor(-self.data, [(self, np.negative)])

    def __sub__(self, other: Operand) -> Tensor:
        return self + -tensor(other)

    def __radd__(self, other: Operand) -> Tensor:
        return self + other

    def __rmul__(self, other: Operand) -> Tensor:
        return self * other

    def __rsub__(self, other: Operand) -> Tensor:
        return tensor(other) - self

    def __rtruediv__(self, other: Operand) -> Tensor:
        return tensor(other) / self

    def __matmul__(self, other: Tensor) -> Tensor:
        """Matrix product over the last two axes; those before broadcast. Both operands have two axes or more."""
        a, b = self, other
        if min(a.data.ndim, b.data.ndim) < 2:
            raise ValueError(f"a matrix product needs two axes or more, got shapes {a.shape} and {b.shape}")
        to_a, to_b = _to(a), _to(b)
        return Tensor(
            a.data @ b.data,
            [(a, lambda g: to_a(g @ b.data.swapaxes(-1, -2))), (b, lambda g: to_b(a.data.swapaxes(-1, -2) @ g))],
        )

    def __getitem__(self, index: Any) -> Tensor:
        """Whatever NumPy's indexing picks; an element that is picked twice receives both gradients."""

        def vjp(g: Array) -> Array:
            whole = np.zeros_like(self.data)
            np.add.at(whole, index, g)
            return whole

        return Tensor(self.data[index], [(self, vjp)])

    def exp(self) -> Tensor:
        y = np.exp(self.data)
        return Tensor(y, [(self, lambda g: g * y)])

    def log(self) -> Tensor:
        return Tensor(np.log(self.data), [(self, lambda g: g / self.data)])

    def tanh(self) -> Tensor:
        y = np.tanh(self.data)
        return Tensor(y, [(self, lambda g: g * (1 - y * y))])

    def relu(self) -> Tensor:
        return Tensor(np.maximum(self.data, 0), [(self, lambda g: g * (self.data > 0))])

    def sum(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
        def vjp(g: Array) -> Array:
            if axis is not None and not keepdims:
                g = np.expand_dims(g, axis)
            return np.broadcast_to(g, self.shape)

        return Tensor(self.data.sum(axis=axis, keepdims=keepdims), [(self, vjp)])

    def mean(self, axis: Axis = None, *, keepdims: bool = False) -> Tensor:
        total = self.sum(axis, keepdims=keepdims)
        return total * (total.data.size / self.data.size)

    def max(self, axis: int, *, keepdims: bool = False) -> Tensor:
        """The largest along an axis; the first of equals receives the gradient."""
        at = np.expand_dims(self.data.argmax(axis=axis), axis)

        def vjp(g: Array) -> Array:
            whole = np.zeros_like(self.data)
            np.put_along_axis(whole, at, g if keepdims else np.expand_dims(g, axis), axis)
            return whole

        largest = np.take_along_axis(self.data, at, axis)
        return Tensor(largest if keepdims else largest.squeeze(axis), [(self, vjp)])

    def reshape(self, *shape: int) -> Tensor:
        return Tensor(self.data.reshape(shape), [(self, lambda g: g.reshape(self.shape))])

    def transpose(self, *axes: int) -> Tensor:
        """The axes in a new order; backwards without any."""
        order = axes or tuple(reversed(range(self.data.ndim)))
        back = tuple(np.argsort(order))
        return Tensor(self.data.transpose(order), [(self, lambda g: g.transpose(back))])

    def log_softmax(self, axis: int = -1) -> Tensor:
        """``x − log Σ exp(x)`` along an axis, as one node: its gradient needs only the softmax."""
        shifted = self.data - self.data.max(axis=axis, keepdims=True)
        y = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
        return Tensor(y, [(self, lambda g: g - np.exp(y) * g.sum(axis=axis, keepdims=True))])

    def backward(self) -> None:
        """Adds d(this) / d(t) to the `grad` of every tensor t that this one, a single number, was made from.

        Raises:
            ValueError: this holds more than one number.
        """
        if self.data.size != 1:
            raise ValueError(f"only a single number can be traced back, got shape {self.shape}")
        adjoint: dict[Tensor, Array] = {self: np.ones_like(self.data)}
        for node in reversed(topological_order(self, _inputs)):
            received = adjoint.pop(node)
            node.grad = received.copy() if node.grad is None else node.grad + received
            for parent, vjp in node._inputs:
                contribution = vjp(received)
                adjoint[parent] = adjoint[parent] + contribution if parent in adjoint else contribution

    def __repr__(self) -> str:
        return f"Tensor({self.data!r})"


Operand = Tensor | Array | float


def tensor(number: Operand) -> Tensor:
    """A constant of the graph, unless it is a part of one already."""
    return number if isinstance(number, Tensor) else Tensor(number)


def concatenate(parts: Sequence[Tensor], axis: int = 0) -> Tensor:
    """The parts side by side along an axis."""
    ends = np.cumsum([array.shape[axis] for array in parts])[:-1]

    def vjp(number: int) -> Vjp:
        return lambda g: np.split(g, ends, axis=axis)[number]

    return Tensor(
        np.concatenate([array.data for array in parts], axis=axis),
        [(array, vjp(number)) for number, array in enumerate(parts)],
    )


def _inputs(node: Tensor) -> list[Tensor]:
    return [parent for parent, _ in node._inputs]


def _to(operand: Tensor) -> Vjp:
    """Sums the adjoint over the axes along which broadcasting repeated the operand."""

    def vjp(g: Array) -> Array:
        g = g.sum(axis=tuple(range(g.ndim - operand.data.ndim)))
        stretched = tuple(axis for axis, size in enumerate(operand.shape) if size == 1 != g.shape[axis])
        return g.sum(axis=stretched, keepdims=True) if stretched else g

    return vjp
