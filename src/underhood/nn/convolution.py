"""A short gated convolution: the cheapest way to let a token see its nearest neighbours.

Attention has to learn that the previous token matters; a convolution knows it from the start, and costs a few
multiplications per token instead of T. Layers of this kind below a few attention layers are how Hyena (Poli et al.
2023) and the hybrid models after it save time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.nn.forward_context import ForwardContext


@dataclass(frozen=True, kw_only=True)
class ShortConvolutionSpec:
    """``output(gate(x) · Σ_j tap_j · value(x)_{t−j})``: a causal convolution per channel, gated by the token itself.

    The explicit short filter of a Hyena operator of order 1 (Poli et al. 2023, definition 3.1). Neighbours of another
    document are never read.

    Attributes:
        taps: tokens that each position sees, itself included.
    """

    taps: int = 3

    def __post_init__(self):
        if self.taps < 1:
            raise ValueError(f"taps must be at least 1, got {self.taps}")

    def build(self, width: int, layer: int) -> "ShortConvolution":
        return ShortConvolution(width, self)


class ShortConvolution(nn.Module):
    """Mixes each channel of the last few tokens; see `ShortConvolutionSpec`. Reads whole texts only, no cache."""

    def __init__(self, width: int, spec: ShortConvolutionSpec):
        super().__init__()
        self.spec = spec
        self.value = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.taps = nn.ParameterList(nn.Parameter(torch.ones(width)) for _ in range(spec.taps))

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext) -> Float[Tensor, "B T D"]:
        if ctx.cache is not None:
            raise UserError("a short convolution keeps nothing in a cache", fix="generate with cache=False")
        v_BTD = self.value(x_BTD)
        mixed_BTD = v_BTD * self.taps[0]
        whole_BT = None if ctx.plain else _follows(ctx.positions_BT)
        inside_BT = whole_BT
        for back in range(1, min(self.spec.taps, x_BTD.shape[1])):
            earlier_BTD = v_BTD[:, :-back]
            if whole_BT is not None and inside_BT is not None:
                if back > 1:  # all `back` steps to the left stay in the document
                    inside_BT = inside_BT[:, 1:] & whole_BT[:, : 1 - back]
                earlier_BTD = earlier_BTD * inside_BT[..., None]
            later_BTD = torch.addcmul(mixed_BTD[:, back:], earlier_BTD, self.taps[back])
            mixed_BTD = torch.cat((mixed_BTD[:, :back], later_BTD), dim=1)
        return self.output(mixed_BTD * self.gate(x_BTD))


def _follows(positions_BT: Int[Tensor, "B T"]) -> Bool[Tensor, "B T-1"]:
    """For each token but the first: its left neighbour is the token before it in the same document."""
    return (positions_BT[:, 1:] == positions_BT[:, :-1] + 1) & (positions_BT[:, :-1] >= 0)
