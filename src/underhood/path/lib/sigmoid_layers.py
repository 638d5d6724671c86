"""Layers of logistic units as in 1986: activities with a constant input for the bias."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def sigmoid(x: Floats) -> Floats:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def with_bias(x: Floats) -> Floats:
    """The activities with a last column of ones, whose weights are the biases."""
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)
