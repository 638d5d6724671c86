"""Recurrent cells written out, many networks at once: Elman's, the LSTM and the GRU.

The weights of S networks are stacked along a first axis. One step of all of them costs hardly more than one step of
one, because such small products are all overhead. `nn.recurrence` has the cells for use.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Cell = Literal["tanh", "lstm", "gru"]
_GATES = {"tanh": 1, "lstm": 4, "gru": 3}


@dataclass
class StackedCells:
    """S recurrent networks of one kind: X inputs, H units with g gates, and K outputs.

    Attributes:
        input_SXG: (S, X, g·H), rows of inputs. An LSTM's gates are in torch's order: input, forget, memory, output;
            a GRU's are reset, update, new.
        hidden_SHG: (S, H, g·H).
        bias_SG: (S, g·H).
        output_SHK: (S, H, K).
        forgets_all: an LSTM without its memory: nothing of the old c is kept.
    """

    cell: Cell
    input_SXG: Tensor
    hidden_SHG: Tensor
    bias_SG: Tensor
    output_SHK: Tensor
    forgets_all: bool = False

    @classmethod
    def initialize(
        cls, cell: Cell, networks: int, inputs: int, hidden: int, outputs: int, *, seed: int, keep: float = 0.0
    ) -> "StackedCells":
        """Uniform weights within ±1 / √H, as torch's cells have them.

        Args:
            keep: bias of the forget gate (LSTM) and the update gate (GRU): σ(keep) of the old state is kept at first.
        """
        draw = torch.Generator().manual_seed(seed)
        width = _GATES[cell] * hidden

        def uniform(*shape: int) -> Tensor:
            return (torch.rand(networks, *shape, generator=draw) * 2 - 1) / math.sqrt(hidden)

        bias_SG = torch.zeros(networks, width)
        if cell != "tanh":
            bias_SG[:, hidden : 2 * hidden] = keep
        return cls(cell, uniform(inputs, width), uniform(hidden, width), bias_SG, uniform(hidden, outputs))

    @property
    def weights(self) -> list[Tensor]:
        return [self.input_SXG, self.hidden_SHG, self.bias_SG, self.output_SHK]

    def drive(self, tokens_SBT: Tensor) -> Float[Tensor, "S B T G"]:
        """The share of the inputs in the gates; inputs are one-hot, so it is a row of weights for each."""
        network_S11 = torch.arange(len(tokens_SBT))[:, None, None]
        return self.input_SXG[network_S11, tokens_SBT] + self.bias_SG[:, None, None]

    def last_state(self, drive_SBTG: Float[Tensor, "S B T G"]) -> Float[Tensor, "S B H"]:
        """The hidden state after the last step."""
        networks, rows, _, _ = drive_SBTG.shape
        h = c = drive_SBTG.new_zeros(networks, rows, self.hidden_SHG.shape[1])
        for x in drive_SBTG.unbind(2):
            if self.cell == "tanh":
                h = torch.tanh(x + h @ self.hidden_SHG)
            elif self.cell == "lstm":
                i, f, g, o = (x + h @ self.hidden_SHG).chunk(4, dim=-1)
                new = torch.sigmoid(i) * torch.tanh(g)
                c = new if self.forgets_all else torch.sigmoid(f) * c + new
                h = torch.sigmoid(o) * torch.tanh(c)
            else:
                (x_r, x_z, x_n), (u_r, u_z, u_n) = x.chunk(3, dim=-1), (h @ self.hidden_SHG).chunk(3, dim=-1)
                z = torch.sigmoid(x_z + u_z)
                h = (1 - z) * torch.tanh(x_n + torch.sigmoid(x_r + u_r) * u_n) + z * h
        return h

    def scores(self, tokens_SBT: Tensor) -> Float[Tensor, "S B K"]:
        """Outputs after the last token."""
        return self.last_state(self.drive(tokens_SBT)) @ self.output_SHK


def longest_chain(result: Tensor) -> int:
    """How many operations have to follow one another, at the most, to compute a tensor: the depth of its graph."""
    depth: dict[object, int] = {}
    waiting = [result.grad_fn]
    while waiting:
        node = waiting[-1]
        before = [parent for parent, _ in node.next_functions if parent is not None]  # type: ignore[union-attr]
        missing = [parent for parent in before if parent not in depth]
        if missing:
            waiting += missing
        else:
            depth[node] = 1 + max((depth[parent] for parent in before), default=0)
            waiting.pop()
    return depth[result.grad_fn]


def share_of_gradient(output: Tensor, inputs_SBTX: Tensor, draw: torch.Generator) -> Float[Tensor, "T"]:
    """Norm of the gradient of a random sum of outputs at the input of each step back, as a share of the last step's."""
    (output * torch.randn(output.shape, generator=draw)).sum().backward()
    assert inputs_SBTX.grad is not None
    norms_T = inputs_SBTX.grad.norm(dim=-1).mean(dim=(0, 1)).flip(0)
    return norms_T / norms_T[0]


def linear_slope(hidden: int, steps: int, radius: float, seed: int) -> float:
    """Slope of log gradient against steps back in a network without tanh, of `radius` times an orthogonal matrix."""
    draw = torch.Generator().manual_seed(seed)
    matrix = radius * torch.linalg.qr(torch.randn(hidden, hidden, generator=draw, dtype=torch.float64))[0]
    inputs = torch.zeros(steps + 1, hidden, dtype=torch.float64, requires_grad=True)
    h = torch.zeros(hidden, dtype=torch.float64)
    for x in inputs:
        h = matrix @ h + x
    h.sum().backward()
    assert inputs.grad is not None
    return float(np.polyfit(np.arange(steps, -1, -1), inputs.grad.norm(dim=1).log().numpy(), 1)[0])
