"""The WaveNet-style language model: a stack of dilated causal convolutions over token vectors.

Each layer joins the vector of a token with that of a token before it: 1 back in the first layer, 2 in the second, then
4, 8 and so on. So every token sees 2^layers tokens through a binary tree, whose nodes are shared with the trees of the
other tokens: training works out all positions at once, and writing a token costs one node per layer, because the cache
keeps the last vectors of each. Van den Oord et al. 2016; Karpathy's makemore part 5 (2022) is the version for letters,
with batch normalisation and without gates and residual connections.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor, nn

from underhood.core.protocols import AttendingCache, Cache
from underhood.core.state import StateSpec
from underhood.models.base import BuiltModel
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import NormSpec, RMSNormSpec


@dataclass(frozen=True, kw_only=True)
class WaveNetSpec:
    """A stack of dilated causal convolutions of two taps.

    Attributes:
        vocab_size: V.
        context_length: tokens of a row in training; what the model reads may be longer.
        embed_dim: E, width of a token's vector.
        d_model: D, width of each layer.
        layers: the model sees 2^layers tokens, the last included.
        norm: normalisation before the activation, or None. With a norm, layers have no bias.
        gated: ``tanh(a) · sigmoid(b)`` (van den Oord et al. 2016, equation 2) in place of tanh.
        residual: each layer adds to its input where both have the same width.
    """

    vocab_size: int
    context_length: int = 256
    embed_dim: int = 24
    d_model: int = 128
    layers: int = 3
    norm: NormSpec | None = RMSNormSpec()
    gated: bool = False
    residual: bool = False

    def __post_init__(self):
        for name in ("vocab_size", "context_length", "embed_dim", "d_model", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    @property
    def widths(self) -> tuple[int, ...]:
        """Of the input of each layer, and of the last one's output."""
        return (self.embed_dim, *(self.d_model,) * self.layers)

    @property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """Convolution taps: each layer's last inputs, as many as it looks back."""
        return tuple(
            StateSpec(vectors=((1, width),), window=2**layer + 1) for layer, width in enumerate(self.widths[:-1])
        )

    @property
    def flops_per_token(self) -> float:
        """Two per weight that multiplies."""
        products = sum(2 * width * self.d_model * (1 + self.gated) for width in self.widths[:-1])
        return 2.0 * (products + self.d_model * self.vocab_size)

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        gates = ", gated" if self.gated else ""
        return {
            "Layers": f"{self.layers} dilated convolutions{gates}",
            "Width": f"{self.d_model}",
            "Context": f"{2**self.layers} tokens",
            "Vocabulary": f"{self.vocab_size:,} tokens",
        }

    def build(self) -> "WaveNet":
        """The module, with its weights not yet initialised for training (see `initialize`)."""
        return WaveNet(self)

    def initialize(self, *, seed: int, embed_std: float = 0.02) -> "WaveNet":
        """Fresh weights, a pure function of the spec and the seed; scores start at zero, the loss at exactly log V.

        Layers are uniform with the variance 1 / inputs, times the gain (5/3)² of tanh where no norm follows.
        """
        model = self.build()
        gain = 1.0 if self.norm is not None else 5 / 3
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith("embed."):
                    # Not `embed_std`: the first layer has no norm before it.
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
                elif name.endswith("pair.weight"):
                    bound = gain * math.sqrt(3.0 / parameter.shape[1])
                    parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
                elif ".norm." not in name:
                    parameter.zero_()
        return model


class PairLayer(nn.Module):
    """A causal convolution of two taps, `dilation` tokens apart, then norm and activation."""

    def __init__(self, inputs: int, layer: int, spec: WaveNetSpec):
        super().__init__()
        self.spec, self.layer, self.dilation = spec, layer, 2**layer
        outputs = spec.d_model * (1 + spec.gated)
        self.pair = nn.Linear(2 * inputs, outputs, bias=spec.norm is None)
        self.norm = nn.Identity() if spec.norm is None else spec.norm.build(outputs)

    def forward(self, x_BTD: Tensor, ctx: ForwardContext) -> Tensor:
        older_BTD = ctx.earlier(self.layer, x_BTD, self.dilation)
        z_BTD = self.norm(self.pair(torch.cat((older_BTD, x_BTD), dim=-1)))
        if self.spec.gated:
            value_BTD, gate_BTD = z_BTD.chunk(2, dim=-1)
            h_BTD = torch.tanh(value_BTD) * torch.sigmoid(gate_BTD)
        else:
            h_BTD = torch.tanh(z_BTD)
        return h_BTD + x_BTD if self.spec.residual and h_BTD.shape == x_BTD.shape else h_BTD


class WaveNet(BuiltModel):
    """A stack of dilated causal convolutions; answers `core.protocols.LanguageModel`."""

    def __init__(self, spec: WaveNetSpec):
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.vocab_size, spec.embed_dim)
        self.layers = nn.ModuleList(
            PairLayer(inputs, layer, spec) for layer, inputs in enumerate(spec.widths[: spec.layers])
        )
        self.unembed = nn.Linear(spec.d_model, spec.vocab_size)

    @property
    def context_length(self) -> None:
        """No limit: tokens further back than 2^layers are not seen."""
        return

    def hidden_states(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
        rows: Tensor | slice | None = None,
    ) -> Tensor:
        """The last layer's output (B, T, D), or that of the tokens `rows` of the T.

        Where a text has just begun, every layer reads zeros for the tokens before it.
        """
        ctx = ForwardContext(tokens, positions, cache)
        x_BTD = self.embed(tokens)
        for layer in self.layers:
            x_BTD = layer(x_BTD, ctx)
        return x_BTD if rows is None else x_BTD[:, rows]
