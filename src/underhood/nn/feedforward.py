"""Feed-forward layers: the plain one and the gated one (Shazeer 2020, "GLU variants improve Transformer")."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from underhood.nn.forward_context import ForwardContext

Activation = Literal["silu", "gelu", "gelu_tanh", "relu", "relu2"]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "relu2": lambda x: F.relu(x).square(),  # So et al. 2021, Primer
}


@dataclass(frozen=True, kw_only=True)
class GatedMLPSpec:
    """``down(activation(gate(x)) · up(x))``: SwiGLU with silu, GeGLU with gelu_tanh."""

    d_ff: int
    activation: Activation = "silu"
    bias: bool = False

    def facts(self) -> dict[str, str]:
        """The spec in words."""
        return {"Feed-forward": f"gated {self.activation}, {self.d_ff:,} wide"}

    def build(self, d_model: int) -> "GatedMLP":
        return GatedMLP(d_model, self)


@dataclass(frozen=True, kw_only=True)
class MLPSpec:
    """``down(activation(up(x)))``: two matrices, as in the original Transformer and GPT-2."""

    d_ff: int
    activation: Activation = "gelu_tanh"
    bias: bool = True

    def facts(self) -> dict[str, str]:
        """The spec in words."""
        return {"Feed-forward": f"plain {self.activation}, {self.d_ff:,} wide"}

    def build(self, d_model: int) -> "MLP":
        return MLP(d_model, self)


class GatedMLP(nn.Module):
    def __init__(self, d_model: int, spec: GatedMLPSpec):
        super().__init__()
        self.spec = spec
        self.gate = nn.Linear(d_model, spec.d_ff, bias=spec.bias)
        self.up = nn.Linear(d_model, spec.d_ff, bias=spec.bias)
        self.down = nn.Linear(spec.d_ff, d_model, bias=spec.bias)

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext) -> Float[Tensor, "B T D"]:
        h_BTF = ACTIVATIONS[self.spec.activation](self.gate(x_BTD)) * self.up(x_BTD)
        return self.down(h_BTF)


class MLP(nn.Module):
    def __init__(self, d_model: int, spec: MLPSpec):
        super().__init__()
        self.spec = spec
        self.up = nn.Linear(d_model, spec.d_ff, bias=spec.bias)
        self.down = nn.Linear(spec.d_ff, d_model, bias=spec.bias)

    def forward(self, x_BTD: Float[Tensor, "*batch D"], ctx: ForwardContext) -> Float[Tensor, "*batch D"]:
        return self.down(ACTIVATIONS[self.spec.activation](self.up(x_BTD)))
