"""The neural probabilistic language model (Bengio et al. 2003): it learns vectors of words while it predicts.

The last n − 1 tokens, each as its vector, go through one hidden layer to scores over the vocabulary::

    y = b + W x + U tanh(d + H x)

x is the vectors side by side. W, the direct connections from vectors to scores, may be left out. With their mean in
place of x and no hidden layer it is the continuous bag of words (Mikolov et al. 2013), reading to the left only. More
hidden layers, each with a norm before tanh, make it the multilayer perceptron of Karpathy's makemore (2022).
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
from underhood.nn.norm import NormSpec


@dataclass(frozen=True, kw_only=True)
class NPLMSpec:
    """A neural n-gram.

    Attributes:
        vocab_size: V.
        context_length: tokens of a row in training; what the model reads may be longer.
        order: n; the model sees n − 1 tokens back.
        d_model: m, width of a token's vector (30 to 100 in the paper).
        hidden: h, units of the hidden layer (50 to 100); 0 for none, which leaves the direct connections.
        direct: whether vectors are also connected to the scores directly.
        bag: x is the mean of the vectors, whatever their order.
        layers: hidden layers, one above the other.
        norm: normalisation before tanh in each, or None. With a norm, hidden layers have no bias.
    """

    vocab_size: int
    context_length: int = 256
    order: int = 6
    d_model: int = 60
    hidden: int = 50
    direct: bool = True
    bag: bool = False
    layers: int = 1
    norm: NormSpec | None = None

    def __post_init__(self):
        least_of = {"vocab_size": 1, "context_length": 1, "order": 2, "d_model": 1, "hidden": 0, "layers": 1}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not self.hidden and not self.direct:
            raise ValueError("a model without hidden units needs direct connections")
        if not self.hidden and (self.layers > 1 or self.norm is not None):
            raise ValueError("a model without hidden units has no further layers and no norm")

    @property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """The vectors of the last tokens."""
        return (StateSpec(vectors=((1, self.d_model),), window=self.order - 1),)

    @property
    def inputs(self) -> int:
        """Width of x."""
        return self.d_model * (1 if self.bag else self.order - 1)

    @property
    def flops_per_token(self) -> float:
        """Two per weight that multiplies."""
        deeper = (self.layers - 1) * self.hidden
        hidden = self.hidden * (self.inputs + deeper + self.vocab_size)
        return 2.0 * (hidden + self.direct * self.inputs * self.vocab_size)

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        layers = f"{self.layers} × " if self.layers > 1 else ""
        return {
            "Order": f"{self.order} tokens{', as a bag' if self.bag else ''}",
            "Width": f"{self.d_model}",
            "Hidden units": f"{layers}{self.hidden}{', and direct connections' if self.direct else ''}",
            "Vocabulary": f"{self.vocab_size:,} tokens",
        }

    def build(self) -> "NPLM":
        """The module, with its weights not yet initialised for training (see `initialize`)."""
        return NPLM(self)

    def initialize(self, *, seed: int, embed_std: float = 0.02) -> "NPLM":
        """Fresh weights, a pure function of the spec and the seed; scores start at zero, the loss at exactly log V."""
        model = self.build()
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.startswith("embed."):
                    # Not `embed_std`: without norms after it, vectors that small would leave tanh all but linear.
                    parameter.copy_(torch.randn(parameter.shape, generator=generator))
                elif name.startswith(("hidden.", "deeper.")) and name.endswith("weight"):
                    bound = math.sqrt(3.0 / parameter.shape[1])
                    parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
                elif not name.startswith("norms."):
                    parameter.zero_()
        return model


class NPLM(BuiltModel):
    """A neural n-gram; answers `core.protocols.LanguageModel`."""

    def __init__(self, spec: NPLMSpec):
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.vocab_size, spec.d_model)
        bias, more = spec.norm is None, range(spec.layers - 1)
        self.hidden = nn.Linear(spec.inputs, spec.hidden, bias=bias) if spec.hidden else None
        self.deeper = nn.ModuleList(nn.Linear(spec.hidden, spec.hidden, bias=bias) for _ in more)
        norms = [] if spec.norm is None else [spec.norm.build(spec.hidden) for _ in range(spec.layers)]
        self.norms = nn.ModuleList(norms)
        self.unembed = nn.Linear(spec.hidden + spec.direct * spec.inputs, spec.vocab_size)

    @property
    def context_length(self) -> None:
        """No limit: tokens more than order − 1 back are not seen."""
        return

    def hidden_states(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
        rows: Tensor | slice | None = None,
    ) -> Tensor:
        """What the scores are made of (B, T, h + width of x): hidden units, then x if it is connected.

        Where a text has just begun, the tokens before it are vectors of zeros.
        """
        ctx = ForwardContext(tokens, positions, cache)
        window_BTNM = ctx.recent(0, self.embed(tokens), self.spec.order - 2)
        x_BTX = window_BTNM.mean(2) if self.spec.bag else window_BTNM.flatten(2)
        if rows is not None:
            x_BTX = x_BTX[:, rows]
        if self.hidden is None:
            return x_BTX
        hidden_BTH = x_BTX
        for number, layer in enumerate((self.hidden, *self.deeper)):
            z_BTH = layer(hidden_BTH)
            norm = self.norms[number] if self.norms else nn.Identity()
            hidden_BTH = torch.tanh(norm(z_BTH))
        return torch.cat((hidden_BTH, x_BTX), dim=-1) if self.spec.direct else hidden_BTH
