"""Neural network layers over `grad.tensor`: linear, convolution, cross-entropy, gradient descent."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from underhood.grad.tensor import Array, Tensor


class Linear:
    """``x W + b`` for x of shape (…, inputs): weights uniform within ±1/sqrt(inputs), biases too."""

    def __init__(self, inputs: int, outputs: int, generator: np.random.Generator):
        bound = inputs**-0.5
        self.weight = Tensor(generator.uniform(-bound, bound, (inputs, outputs)))
        self.bias = Tensor(generator.uniform(-bound, bound, outputs))
        self.parameters = [self.weight, self.bias]

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class Convolution:
    """The same small `Linear` at every place of a picture (LeCun et al. 1989): (B, C, Y, X) to (B, outputs, Y', X').

    Each place's window is gathered into a row, and one matrix product serves all rows. Positions outside the picture
    read as `beyond`.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        generator: np.random.Generator,
        *,
        stride: int = 1,
        padding: int = 0,
        beyond: float = 0.0,
    ):
        self.size, self.stride, self.padding, self.beyond = size, stride, padding, beyond
        self.linear = Linear(inputs * size * size, outputs, generator)
        self.parameters = self.linear.parameters

    def __call__(self, x_BCYX: Tensor) -> Tensor:
        channels = x_BCYX.shape[1]
        window_BYXN = windows(pad(x_BCYX, self.padding, self.beyond), self.size, self.stride)
        assert window_BYXN.shape[-1] == channels * self.size**2
        return self.linear(window_BYXN).transpose(0, 3, 1, 2)


def windows(x_BCYX: Tensor, size: int, stride: int) -> Tensor:
    """Every `size` × `size` window, flattened: (B, Y', X', C · size²), the window's columns last in order."""
    _, channels, height, width = x_BCYX.shape
    top = np.arange(0, height - size + 1, stride)
    left = np.arange(0, width - size + 1, stride)
    inside = np.arange(size)
    row = top[:, None, None, None, None] + inside[:, None]
    column = left[:, None, None, None] + inside
    channel = np.arange(channels)[:, None, None]
    found_BYXCyx = x_BCYX[:, channel, row, column]
    return found_BYXCyx.reshape(x_BCYX.shape[0], len(top), len(left), -1)


def pad(x_BCYX: Tensor, width: int, value: float = 0.0) -> Tensor:
    """The pictures within a frame of `width` pixels of `value`."""
    if width == 0:
        return x_BCYX
    framed = np.pad(x_BCYX.data, [(0, 0), (0, 0), (width, width), (width, width)], constant_values=value)
    return Tensor(framed, [(x_BCYX, lambda g: g[..., width:-width, width:-width])])


def cross_entropy(scores_BC: Tensor, truth_B: Array) -> Tensor:
    """Mean of −log softmax(scores)[truth], in nats."""
    return -(scores_BC.log_softmax()[np.arange(len(truth_B)), truth_B]).mean()


def descend(parameters: Iterable[Tensor], rate: float) -> None:
    """One step of gradient descent; clears the gradients."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.data = parameter.data - rate * parameter.grad
            parameter.grad = None
