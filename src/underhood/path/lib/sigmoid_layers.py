"""Layers of logistic units as in 1986: activities with a constant input for the bias, and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def with_bias(x: Floats) -> Floats:
    """The activities with a last column of ones, whose weights are the biases."""
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)


def initial_layers(sizes: Sequence[int], rng: np.random.Generator) -> list[Floats]:
    """Weights of fully connected layers, (inputs + 1, outputs) each; the last row is the biases.

    Weights are normal with variance 1 / inputs, biases standard normal (Nielsen 2015, chapter 3).
    """
    return [
        np.concatenate([rng.standard_normal((i, o)) / i**0.5, rng.standard_normal((1, o))]) for i, o in pairwise(sizes)
    ]


def activities(weights: Sequence[Floats], x: Floats) -> list[Floats]:
    """The activities (N, units) of every layer for N inputs, the inputs first and the outputs last."""
    layers = [x]
    for w in weights:
        layers.append(sigmoid(with_bias(layers[-1]) @ w))
    return layers


def squared_error_gradients(
    weights: Sequence[Floats], layers: Sequence[Floats], y: Floats, *, passes_back: bool = True
) -> list[Floats]:
    """The gradient of the mean over N examples of ½ Σ (a − y)², by backpropagation.

    Args:
        layers: what `activities` gave.
        y: the outputs that are wanted, (N, units).
        passes_back: False stops the error at the output layer, so that hidden layers get a gradient of zero.
    """
    error = (layers[-1] - y) / len(y)
    gradients: list[Floats] = []
    for w, below, above in zip(reversed(weights), layers[-2::-1], layers[:0:-1], strict=True):
        error = error * above * (1 - above)
        gradients.insert(0, with_bias(below).T @ error)
        error = error @ w[:-1].T if passes_back else np.zeros((len(y), len(w) - 1))
    return gradients
