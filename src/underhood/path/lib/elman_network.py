"""Elman's simple recurrent network as he trained it: a copied context, and backpropagation within each time step.

The hidden units read the input and a copy of their own last activities (Elman 1990, figure 2). The copy is an input
like any other, so no error goes back through time. Units are logistic, and the weights change after every symbol.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from underhood.kernels.jit import kernel
from underhood.path.lib.sigmoid_layers import sigmoid, with_bias

Floats = NDArray[np.float64]
CONTEXT_START = 0.5
"""Activities of the context before the first symbol (Elman 1990, page 182)."""


@dataclass
class ElmanNetwork:
    """Weights of a network of I inputs, H hidden units with a context of H more inputs, and O outputs.

    Attributes:
        hidden_IH: (I + H + 1, H), rows of inputs first, then of the context, then the biases.
        output_HO: (H + 1, O), the biases last.
        copies: whether the context is a copy of the hidden units; False leaves it at its start, so that nothing is
            remembered.
    """

    hidden_IH: Floats
    output_HO: Floats
    copies: bool = True

    @classmethod
    def initialize(
        cls, inputs: int, hidden: int, outputs: int, *, seed: int, bound: float, copies: bool = True
    ) -> "ElmanNetwork":
        """Uniform weights within ±bound."""
        rng = np.random.default_rng(seed)
        shapes = (inputs + hidden + 1, hidden), (hidden + 1, outputs)
        return cls(*(rng.uniform(-bound, bound, shape) for shape in shapes), copies=copies)

    def train(self, x_TI: Floats, y_TO: Floats, *, rate: float, passes: int) -> None:
        """Learns to answer each input with its target, in place; several passes over the sequence, in order."""
        _train(x_TI, y_TO, self.hidden_IH, self.output_HO, rate, passes, self.copies)

    def run(self, x_TI: Floats) -> tuple[Floats, Floats]:
        """Activities of the output units (T, O) and of the hidden units (T, H); nothing is learnt."""
        inputs = x_TI.shape[1]
        drive_TH = x_TI @ self.hidden_IH[:inputs] + self.hidden_IH[-1]
        recurrent_HH, context_H = self.hidden_IH[inputs:-1], np.full(self.hidden_IH.shape[1], CONTEXT_START)
        h_TH = np.empty_like(drive_TH)
        for t, drive_H in enumerate(drive_TH):
            h_TH[t] = sigmoid(drive_H + context_H @ recurrent_HH)
            if self.copies:
                context_H = h_TH[t]
        return sigmoid(with_bias(h_TH) @ self.output_HO), h_TH


@kernel
def _train(x_TI: Any, y_TO: Any, w: Any, v: Any, rate: float, passes: int, copies: bool) -> None:
    inputs, hidden, outputs = x_TI.shape[1], w.shape[1], v.shape[1]
    x, h = np.full(inputs + hidden + 1, CONTEXT_START), np.empty(hidden)
    error_h, error_o = np.empty(hidden), np.empty(outputs)
    x[-1] = 1.0
    for _ in range(passes):
        for t in range(len(x_TI)):
            for i in range(inputs):
                x[i] = x_TI[t, i]
            for j in range(hidden):
                h[j] = 0.0
            for i in range(len(x)):
                if x[i] != 0.0:  # most inputs of one-hot words are
                    for j in range(hidden):
                        h[j] += x[i] * w[i, j]
            for k in range(outputs):
                error_o[k] = v[hidden, k]
            for j in range(hidden):
                h[j] = 1.0 / (1.0 + math.exp(-h[j]))
                for k in range(outputs):
                    error_o[k] += h[j] * v[j, k]
            for k in range(outputs):
                y = 1.0 / (1.0 + math.exp(-error_o[k]))
                error_o[k] = (y - y_TO[t, k]) * y * (1.0 - y) * rate
                v[hidden, k] -= error_o[k]
            for j in range(hidden):
                slope = 0.0
                for k in range(outputs):
                    slope += error_o[k] * v[j, k]
                    v[j, k] -= error_o[k] * h[j]
                error_h[j] = slope * h[j] * (1.0 - h[j])
            for i in range(len(x)):
                if x[i] != 0.0:
                    for j in range(hidden):
                        w[i, j] -= error_h[j] * x[i]
            if copies:
                for j in range(hidden):
                    x[inputs + j] = h[j]
