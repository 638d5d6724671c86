"""The Transformer block: a mixer across tokens, then a feed-forward within each, both added to the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn

from underhood.nn.norm import NormSpec, RMSNormSpec
from underhood.nn.reading import Reading


class MixerSpec(Protocol):
    """A slot that takes anything that moves information between tokens: attention, recurrence, memory."""

    def build(self, width: int, layer: int) -> nn.Module: ...


class FeedForwardSpec(Protocol):
    """A slot that takes anything that works on each token alone."""

    def build(self, width: int) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One layer: ``x + mixer(norm(x))``, then ``x + feedforward(norm(x))`` (pre-norm, as GPT-2 and after).

    Attributes:
        mixer: attention or another token mixer.
        feedforward: what follows it.
        norm: the norm before each of the two.
    """

    mixer: MixerSpec
    feedforward: FeedForwardSpec
    norm: NormSpec = RMSNormSpec()

    def build(self, width: int, layer: int) -> "Block":
        return Block(width, layer, self)


class Block(nn.Module):
    def __init__(self, width: int, layer: int, spec: BlockSpec):
        super().__init__()
        self.spec = spec
        self.mixer_norm = spec.norm.build(width)
        self.mixer = spec.mixer.build(width, layer)
        self.feedforward_norm = spec.norm.build(width)
        self.feedforward = spec.feedforward.build(width)

    def forward(self, x_BTD: Float[Tensor, "B T D"], reading: Reading) -> Float[Tensor, "B T D"]:
        x_BTD = x_BTD + self.mixer(self.mixer_norm(x_BTD), reading)
        return x_BTD + self.feedforward(self.feedforward_norm(x_BTD), reading)
