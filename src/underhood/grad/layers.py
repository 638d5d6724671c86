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


def cross_entropy(scores_BC: Tensor, truth_B: Array) -> Tensor:
    """Mean of −log softmax(scores)[truth], in nats."""
    return -(scores_BC.log_softmax()[np.arange(len(truth_B)), truth_B]).mean()


def descend(parameters: Iterable[Tensor], rate: float) -> None:
    """One step of gradient descent; clears the gradients."""
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.data = parameter.data - rate * parameter.grad
            parameter.grad = None
