"""Attention-only decoders (Elhage et al. 2021), and sequences that repeat a block of random tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.inspect.interventions import changing_all
from underhood.inspect.sites import Hookable
from underhood.inspect.trace import recording
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import Attention, AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import RMSNormSpec
from underhood.nn.rope import RotarySpec

Head = tuple[int, int]
"""A layer and a head in it."""


@dataclass(frozen=True, kw_only=True)
class NoFeedForwardSpec:
    """A feed-forward that adds nothing, so that a block is its attention."""

    def facts(self) -> dict[str, str]:
        return {"Feed-forward": "none"}

    def build(self, d_model: int) -> nn.Module:
        return NoFeedForward()


class NoFeedForward(nn.Module):
    def forward(self, x_BTD: Tensor, ctx: ForwardContext) -> Tensor:
        return torch.zeros_like(x_BTD)


def attention_only(*, vocab_size: int, context_length: int, d_model: int, layers: int, heads: int) -> DecoderSpec:
    """A decoder of attention layers alone, with rotary positions and normalised queries and keys."""
    return DecoderSpec(
        vocab_size=vocab_size,
        context_length=context_length,
        d_model=d_model,
        layers=layers,
        blocks=(
            BlockSpec(
                mixer=AttentionSpec(heads=heads, rotary=RotarySpec(), qk_norm=RMSNormSpec()),
                feedforward=NoFeedForwardSpec(),
            ),
        ),
    )


def repeated_blocks(
    count: int, length: int, vocab_size: int, periods: tuple[int, int], generator: torch.Generator
) -> Int[Tensor, "N T"]:
    """Sequences of a block of different random tokens, again and again, as long as drawn from `periods`, ends included.

    A length that varies keeps a layer from copying by position alone.
    """
    order_NV = torch.rand(count, vocab_size, generator=generator).argsort(dim=1)
    period_N1 = torch.randint(periods[0], periods[1] + 1, (count, 1), generator=generator)
    return order_NV.gather(1, torch.arange(length) % period_N1)


@torch.no_grad()
def attention_patterns(model: Decoder, tokens_NT: Int[Tensor, "N T"]) -> Float[Tensor, "L N H T T"]:
    """The attention weights of all layers: row t says what token t takes from each token up to it."""
    patterns: list[Tensor] = []
    layers = range(len(model.blocks))
    weights = {f"weights.{layer}": Hookable(attention_in(model, layer).weights, "output") for layer in layers}
    with recording(weights, lambda _, value: patterns.append(value.flatten(1, 2))):
        model(tokens_NT)
    return torch.stack(patterns)


def prefix_matching(pattern: Float[Tensor, "*lead T T"], period: int) -> Float[Tensor, "*lead"]:
    """Mean attention from each token of the second block to the one after its first occurrence (Olsson et al. 2022)."""
    at = torch.arange(period, pattern.shape[-1])
    return pattern[..., at, at - period + 1].mean(dim=-1)


def previous_token(pattern: Float[Tensor, "*lead T T"]) -> Float[Tensor, "*lead"]:
    """Mean attention from each token to the one before it."""
    return pattern.diagonal(offset=-1, dim1=-2, dim2=-1).mean(dim=-1)


@contextmanager
def silenced(model: Decoder, heads: Sequence[Head]) -> Iterator[None]:
    """Inside, these heads add nothing to the residual stream (zero ablation)."""
    changes = []
    for layer, head in heads:
        width = attention_in(model, layer).head_dim

        def without(y_BTI: Tensor, columns: slice = slice(head * width, (head + 1) * width)) -> Tensor:
            y_BTI = y_BTI.clone()
            y_BTI[..., columns] = 0
            return y_BTI

        changes.append((Hookable(attention_in(model, layer).output, "input"), without))
    with changing_all(changes):
        yield


def attention_in(model: Decoder, layer: int) -> Attention:
    return cast(Attention, model.blocks[layer].mixer)
