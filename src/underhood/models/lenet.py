"""The network of LeCun et al. 1989: shared 5 × 5 receptive fields, 9,760 weights."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

PAPER = -1.0
"""Padding value around a picture whose pixels go from −1 (paper) to 1 (ink)."""


class LeNet(nn.Module):
    """Reads pictures of 16 × 16; two layers of twelve maps, thirty hidden units, ten outputs without a squash.

    Weights are shared over a map, biases are not. Each map of the second layer sees eight maps of the first; which, the
    paper does not say: here it is two of three overlapping thirds. Starts from U(−2.4/√F, 2.4/√F), F inputs to a unit.

    Args:
        act: the squash between layers; tanh in 1989.
        dropout: share of the second layer's outputs that is dropped in training; none in 1989.
    """

    def __init__(self, act: nn.Module | None = None, dropout: float = 0.0):
        super().__init__()
        self.h1, self.b1 = _uniform(12, 1, 5, 5, inputs=25), nn.Parameter(torch.zeros(12, 8, 8))
        self.h2, self.b2 = _uniform(12, 8, 5, 5, inputs=200), nn.Parameter(torch.zeros(12, 4, 4))
        self.h3, self.b3 = _uniform(192, 30, inputs=192), nn.Parameter(torch.zeros(30))
        self.out, self.b_out = _uniform(30, 10, inputs=30), nn.Parameter(torch.zeros(10))
        self.act, self.dropout = act or nn.Tanh(), nn.Dropout(dropout)

    def forward(self, x: Float[Tensor, "B 1 16 16"]) -> Float[Tensor, "B 10"]:
        """Ten outputs per picture; pixels in [−1, 1]."""
        x = self.act(F.conv2d(F.pad(x, (2, 2, 2, 2), value=PAPER), self.h1, stride=2) + self.b1)
        x = F.pad(x, (2, 2, 2, 2), value=PAPER)
        seen = torch.cat([x[:, 0:8], x[:, 4:12], x[:, 0:4], x[:, 8:12]], dim=1)  # eight maps for each third of H2
        x = self.act(F.conv2d(seen, self.h2, stride=2, groups=3) + self.b2)
        x = self.act(self.dropout(x.flatten(1)) @ self.h3 + self.b3)
        return x @ self.out + self.b_out


def _uniform(*shape: int, inputs: int) -> nn.Parameter:
    return nn.Parameter((torch.rand(shape) * 2 - 1) * 2.4 / math.sqrt(inputs))
