"""The Transformer block: a mixer across tokens, then a feed-forward within each, both added to the residual stream."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn

from underhood.core.state import StateSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import NormSpec, RMSNormSpec


class MixerSpec(Protocol):
    """A slot that takes anything that moves information between tokens: attention, recurrence, memory."""

    def state_spec(self, width: int) -> StateSpec:
        """What the layer keeps between passes."""
        ...

    def flops(self, width: int, context: int) -> float:
        """Floating-point operations of a forward pass per token, beside those of the weight matrices."""
        ...

    def facts(self, width: int) -> dict[str, str]:
        """The spec in words, for a list."""
        ...

    def build(self, width: int, layer: int) -> nn.Module: ...


class FeedForwardSpec(Protocol):
    """A slot that takes anything that works on each token alone."""

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        ...

    def build(self, width: int) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """One layer: ``x + post(mixer(norm(x)))``, then ``x + post(feedforward(norm(x)))``.

    With `norm` alone it is the pre-norm block of GPT-2 and after; Gemma has both, OLMo 2 only `post_norm`.

    Attributes:
        mixer: attention or another token mixer.
        feedforward: what follows it.
        norm: the norm before each of the two, or None.
        post_norm: the norm of what each of the two adds to the residual stream, or None.
    """

    mixer: MixerSpec
    feedforward: FeedForwardSpec
    norm: NormSpec | None = RMSNormSpec()
    post_norm: NormSpec | None = None

    def build(self, width: int, layer: int) -> "Block":
        return Block(width, layer, self)


class Block(nn.Module):
    def __init__(self, width: int, layer: int, spec: BlockSpec):
        super().__init__()
        self.spec = spec
        self.mixer_norm = spec.norm.build(width) if spec.norm else nn.Identity()
        self.mixer = spec.mixer.build(width, layer)
        self.mixer_post_norm = spec.post_norm.build(width) if spec.post_norm else None
        self.feedforward_norm = spec.norm.build(width) if spec.norm else nn.Identity()
        self.feedforward = spec.feedforward.build(width)
        self.feedforward_post_norm = spec.post_norm.build(width) if spec.post_norm else None

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext, rows: Tensor | slice | None = None) -> Tensor:
        """The residual stream (B, T, D) after the layer; with `rows` only that of those of the T tokens."""
        normed_BTD = self.mixer_norm(x_BTD)
        if rows is None:
            mixed_BTD = self.mixer(normed_BTD, ctx)
        else:
            mixed_BTD, x_BTD = self.mixer(normed_BTD, ctx, rows), x_BTD[:, rows]
        x_BTD = x_BTD + (mixed_BTD if self.mixer_post_norm is None else self.mixer_post_norm(mixed_BTD))
        fed_BTD = self.feedforward(self.feedforward_norm(x_BTD), ctx)
        return x_BTD + (fed_BTD if self.feedforward_post_norm is None else self.feedforward_post_norm(fed_BTD))
