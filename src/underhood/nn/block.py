"""The block: sublayers on a residual stream, each a mixer across tokens or a feed-forward within each token.

Encoder, decoder and cross-attending blocks are the same class `Block`, with other sublayers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from jaxtyping import Float
from torch import Tensor, nn

from underhood.core.state import StateSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import NormSpec, RMSNormSpec


class MixerSpec(Protocol):
    """A slot that takes anything that moves information between tokens: attention, recurrence, memory."""

    def state_spec(self, d_model: int) -> StateSpec:
        """What the layer keeps between passes."""
        ...

    def flops(self, d_model: int, context: int) -> float:
        """Floating-point operations of a forward pass per token, beside those of the weight matrices."""
        ...

    def facts(self, d_model: int) -> dict[str, str]:
        """The spec in words, for a list."""
        ...

    def build(self, d_model: int, layer: int) -> nn.Module: ...


class FeedForwardSpec(Protocol):
    """A slot that takes anything that works on each token alone."""

    def facts(self) -> dict[str, str]:
        """The spec in words, for a list."""
        ...

    def build(self, d_model: int) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class SublayerSpec:
    """One residual branch: ``stream_norm(x + post_norm(layer(norm(x))))``.

    Attributes:
        name: of its modules in the block: ``{name}_norm``, ``{name}``, ``{name}_post_norm`` and so on.
        layer: a mixer or a feed-forward.
        norm: the norm before it (pre-norm, GPT-2 and after), or None.
        post_norm: the norm of what it adds to the residual stream (Gemma has both, OLMo 2 only this one), or None.
        stream_norm: the norm of the residual stream after it (post-norm, Vaswani et al. 2017), or None.
    """

    name: str
    layer: MixerSpec | FeedForwardSpec
    norm: NormSpec | None = None
    post_norm: NormSpec | None = None
    stream_norm: NormSpec | None = None

    @property
    def mixer(self) -> MixerSpec | None:
        """The layer, if it mixes tokens."""
        return cast(MixerSpec, self.layer) if hasattr(self.layer, "state_spec") else None


@dataclass(frozen=True, kw_only=True)
class BlockSpec:
    """The common block of decoders: a mixer, then a feed-forward.

    Attributes:
        mixer: attention or another token mixer.
        feedforward: what follows it.
        norm: the norm before each of the two, or None.
        post_norm: the norm of what each of the two adds to the residual stream, or None.
        stream_norm: the norm of the residual stream after each of the two (post-norm, Vaswani et al. 2017), or None.
    """

    mixer: MixerSpec
    feedforward: FeedForwardSpec
    norm: NormSpec | None = RMSNormSpec()
    post_norm: NormSpec | None = None
    stream_norm: NormSpec | None = None

    @property
    def sublayers(self) -> tuple[SublayerSpec, ...]:
        norms = {"norm": self.norm, "post_norm": self.post_norm, "stream_norm": self.stream_norm}
        return (
            SublayerSpec(name="mixer", layer=self.mixer, **norms),
            SublayerSpec(name="feedforward", layer=self.feedforward, **norms),
        )

    def build(self, d_model: int, layer: int) -> "Block":
        return Block(d_model, layer, self.sublayers)


@dataclass(frozen=True, kw_only=True)
class SublayerBlockSpec:
    """A block of any sublayers, each with a name of its own."""

    sublayers: tuple[SublayerSpec, ...]

    def build(self, d_model: int, layer: int) -> "Block":
        return Block(d_model, layer, self.sublayers)


class Block(nn.Module):
    """A layer made of sublayers.

    The residual stream after each sublayer is the output of the module ``{name}_residual``, where hooks can see and
    change it.

    Args:
        layer: number of the first mixer's state in the cache; further mixers count on from it.
    """

    def __init__(self, d_model: int, layer: int, sublayers: Sequence[SublayerSpec]):
        super().__init__()
        self.sublayers = tuple(sublayers)
        last = None
        for s in self.sublayers:
            self.add_module(f"{s.name}_norm", s.norm.build(d_model) if s.norm else nn.Identity())
            if s.mixer is not None:
                self.add_module(s.name, s.mixer.build(d_model, layer))
                layer, last = layer + 1, s
            else:
                self.add_module(s.name, cast(FeedForwardSpec, s.layer).build(d_model))
            self.add_module(f"{s.name}_post_norm", s.post_norm.build(d_model) if s.post_norm else None)
            self.add_module(f"{s.name}_residual", nn.Identity())
            self.add_module(f"{s.name}_stream_norm", s.stream_norm.build(d_model) if s.stream_norm else None)
        self._last_mixer = last

    def forward(self, x_BTD: Float[Tensor, "B T D"], ctx: ForwardContext, rows: Tensor | slice | None = None) -> Tensor:
        """The residual stream (B, T, D) after the layer; with `rows` only that of those of the T tokens."""
        modules = self._modules
        for s in self.sublayers:
            name = s.name
            layer, post_norm, stream_norm = modules[name], modules[f"{name}_post_norm"], modules[f"{name}_stream_norm"]
            normed_BTD = modules[f"{name}_norm"](x_BTD)  # type: ignore[misc]
            if rows is not None and s is self._last_mixer:  # what follows treats each token alone
                y_BTD, x_BTD = layer(normed_BTD, ctx, rows), x_BTD[:, rows]  # type: ignore[misc]
            else:
                y_BTD = layer(normed_BTD, ctx)  # type: ignore[misc]
            x_BTD = x_BTD + (y_BTD if post_norm is None else post_norm(y_BTD))
            x_BTD = modules[f"{name}_residual"](x_BTD)  # type: ignore[misc]
            if stream_norm is not None:
                x_BTD = stream_norm(x_BTD)
        return x_BTD
