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

from underhood.core.state import StateSpec
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

    def state_spec(self, d_model: int) -> StateSpec:
        """Convolution taps: the values of the last tokens."""
        return StateSpec(vectors=((1, d_model),), window=self.taps)

    def flops(self, d_model: int, context: int) -> float:
        """Of the taps, per token."""
        return 2.0 * self.taps * d_model

    def facts(self, d_model: int) -> dict[str, str]:
        """The spec in words."""
        return {"Convolution": f"gated, over {self.taps} tokens"}

    def build(self, d_model: int, layer: int) -> "ShortConvolution":
        return ShortConvolution(d_model, layer, self)


class ShortConvolution(nn.Module):
    """Mixes each channel of the last few tokens; see `ShortConvolutionSpec`."""

    def __init__(self, d_model: int, layer: int, spec: ShortConvolutionSpec):
        super().__init__()
        self.spec, self.layer = spec, layer
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, d_model, bias=False)
        self.output = nn.Linear(d_model, d_model, bias=False)
        self.taps = nn.ParameterList(nn.Parameter(torch.ones(d_model)) for _ in range(spec.taps))

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext, rows: Tensor | slice | None = None) -> Tensor:
        """What each token (B, T, D) takes from its neighbours; with `rows` only what those of the T tokens take."""
        mixed_BTD, gate_BTD = self._convolve(self.value(x_BTD), ctx), self.gate(x_BTD)
        if rows is not None:
            mixed_BTD, gate_BTD = mixed_BTD[:, rows], gate_BTD[:, rows]
        return self.output(mixed_BTD * gate_BTD)

    def _convolve(self, v_BTD: Tensor, ctx: ForwardContext) -> Tensor:
        if ctx.cached:
            recent_BTCD = ctx.recent(self.layer, v_BTD, self.spec.taps - 1)
            taps_CD = torch.stack([*reversed(self.taps)]).to(v_BTD.dtype)
            return (recent_BTCD * taps_CD).sum(dim=2)
        mixed_BTD = v_BTD * self.taps[0]
        whole_BT = None if ctx.plain else _follows(ctx.positions_BT)
        inside_BT = whole_BT
        for back in range(1, min(self.spec.taps, v_BTD.shape[1])):
            earlier_BTD = v_BTD[:, :-back]
            if whole_BT is not None and inside_BT is not None:
                if back > 1:  # all `back` steps to the left stay in the document
                    inside_BT = inside_BT[:, 1:] & whole_BT[:, : 1 - back]
                earlier_BTD = earlier_BTD * inside_BT[..., None]
            later_BTD = torch.addcmul(mixed_BTD[:, back:], earlier_BTD, self.taps[back])
            mixed_BTD = torch.cat((mixed_BTD[:, :back], later_BTD), dim=1)
        return mixed_BTD

    def initial(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor | None:
        """Fresh taps are normal with deviation 0.5, so that channels start out looking at different neighbours."""
        return torch.randn(parameter.shape, generator=generator) * 0.5 if name.startswith("taps.") else None


def _follows(positions_BT: Int[Tensor, "B T"]) -> Bool[Tensor, "B T-1"]:
    """For each token but the first: its left neighbour is the token before it in the same document."""
    return (positions_BT[:, 1:] == positions_BT[:, :-1] + 1) & (positions_BT[:, :-1] >= 0)
