"""The recurrent language model: embedding, recurrent layers one above the other, and scores over the vocabulary.

Mikolov et al. 2010 (Elman's network as a language model), Sundermeyer et al. 2012 (LSTM). Of all tokens before,
each layer keeps one vector (two with an LSTM), however long the text is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from underhood.core.protocols import AttendingCache, Cache
from underhood.core.state import StateSpec
from underhood.models.base import BuiltModel
from underhood.nn.forward_context import ForwardContext
from underhood.nn.recurrence import Recurrence, RecurrenceSpec


@dataclass(frozen=True, kw_only=True)
class RNNSpec:
    """A recurrent language model.

    Attributes:
        vocab_size: V.
        context_length: tokens of a training sequence: gradients reach back no further. What the model reads may be
            longer.
        d_model: width of the embedding and of every layer's state.
        layers: recurrent layers, each reading the states of the one below.
        recurrence: the cell; its states go on as they are.
        tied: the unembedding is the embedding matrix.
    """

    vocab_size: int
    context_length: int
    d_model: int
    layers: int = 1
    recurrence: RecurrenceSpec = RecurrenceSpec(projected=False)
    tied: bool = False

    def __post_init__(self):
        for name in ("vocab_size", "context_length", "d_model", "layers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.recurrence.width(self.d_model) != self.d_model and not self.recurrence.projected:
            raise ValueError("a state of another width than d_model has to be projected")

    @property
    def state_specs(self) -> tuple[StateSpec, ...]:
        """The states."""
        return (self.recurrence.state_spec(self.d_model),) * self.layers

    @property
    def flops_per_token(self) -> float:
        """Two per weight of the cells and the unembedding, and those of the gates."""
        with torch.device("meta"):
            model = self.build()
        weights = sum(p.numel() for p in model.layers.parameters() if p.ndim == 2) + self.vocab_size * self.d_model
        return 2.0 * weights + self.layers * self.recurrence.flops(self.d_model, self.context_length)

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        tied = ", embedding and unembedding tied" if self.tied else ""
        return {
            "Layers": f"{self.layers}",
            "Width": f"{self.d_model}",
            "Context": f"no limit; trained on {self.context_length:,} tokens at a time",
            "Vocabulary": f"{self.vocab_size:,} tokens{tied}",
        } | self.recurrence.facts(self.d_model)

    def build(self) -> "RNN":
        """The module, with its weights not yet initialised for training (see `initialize`)."""
        return RNN(self)

    def initialize(self, *, seed: int, embed_std: float = 0.02) -> "RNN":
        """Fresh weights, a pure function of the spec and the seed.

        Matrices are uniform within ±1 / sqrt(width), as torch's cells have them, and biases zero but for the LSTM's
        forget gates; the unembedding starts at zero, so that the first loss is exactly log V. Embeddings are normal
        with deviation 1 in place of `embed_std`, since no norm follows them; where they are also the unembedding,
        1 / sqrt(width).
        """
        model = self.build()
        deviation = self.d_model**-0.5 if self.tied else 1.0
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                fresh = None
                if name.startswith("layers."):
                    number, _, within = name.removeprefix("layers.").partition(".")
                    fresh = cast(Recurrence, model.layers[int(number)]).initial(within, parameter, generator)
                if fresh is not None:
                    parameter.copy_(fresh)
                elif name.startswith("embed."):
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) * deviation)
                elif name.startswith("unembed.") or parameter.ndim == 1:
                    parameter.zero_()
                else:
                    bound = 1 / math.sqrt(parameter.shape[1])
                    parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * bound)
        return model


class RNN(BuiltModel):
    """A recurrent language model; answers `core.protocols.LanguageModel`."""

    def __init__(self, spec: RNNSpec):
        super().__init__()
        self.spec = spec
        self.embed = nn.Embedding(spec.vocab_size, spec.d_model)
        self.layers = nn.ModuleList(spec.recurrence.build(spec.d_model, layer) for layer in range(spec.layers))
        self.unembed = nn.Linear(spec.d_model, spec.vocab_size, bias=not spec.tied)
        if spec.tied:
            self.unembed.weight = self.embed.weight

    @property
    def context_length(self) -> None:
        """No limit: the state has the same size after any number of tokens."""
        return

    def hidden_states(
        self,
        tokens: Int[Tensor, "B T"],
        *,
        cache: Cache | AttendingCache | None = None,
        positions: Int[Tensor, "#B T"] | None = None,
        rows: Tensor | slice | None = None,
    ) -> Tensor:
        """The last layer's states (B, T, D), or those after the tokens `rows` of the T."""
        ctx = ForwardContext(tokens, positions, cache)
        x_BTD = self.embed(tokens)
        for layer in self.layers:
            x_BTD = layer(x_BTD, ctx)
        return x_BTD if rows is None else x_BTD[:, rows]
