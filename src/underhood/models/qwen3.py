"""Recognising the house's default architecture, which the world calls Qwen3 (Yang et al. 2025)."""

from __future__ import annotations

from dataclasses import dataclass

from underhood.models.decoder import DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedSpec
from underhood.nn.norm import RMSNormSpec


@dataclass(frozen=True, kw_only=True)
class Qwen3Parts:
    """The numbers that make a Qwen3, beside what `DecoderSpec` itself says.

    Attributes:
        heads, kv_heads, head_width: H, G and K.
        hidden: F.
        theta: base of the rotary positions.
        eps: of every norm.
    """

    heads: int
    kv_heads: int
    head_width: int
    hidden: int
    theta: float
    eps: float


def qwen3_parts(spec: DecoderSpec) -> Qwen3Parts | None:
    """The numbers of a model that is exactly a Qwen3, else None.

    A Qwen3 is made of the numbers found and compared with the spec as a whole, so whatever else a spec can say (a
    window, a bias, a soft cap, a part that is invented later) makes it something else.
    """
    block = spec.blocks[0]
    mixer, feedforward, norm = block.mixer, block.feedforward, spec.norm
    if not (isinstance(mixer, AttentionSpec) and isinstance(feedforward, GatedSpec) and isinstance(norm, RMSNormSpec)):
        return None
    if mixer.rotary is None or len(set(spec.blocks)) > 1:
        return None
    rotary = type(mixer.rotary)(theta=mixer.rotary.theta)
    attention = AttentionSpec(
        heads=mixer.heads, kv_heads=mixer.kv_heads, head_width=mixer.head_width, rotary=rotary, qk_norm=norm
    )
    same = DecoderSpec(
        vocab_size=spec.vocab_size,
        context=spec.context,
        width=spec.width,
        layers=spec.layers,
        blocks=(BlockSpec(mixer=attention, feedforward=GatedSpec(hidden=feedforward.hidden), norm=norm),)
        * len(spec.blocks),
        norm=norm,
        tied=spec.tied,
    )
    if spec != same:
        return None
    return Qwen3Parts(
        heads=mixer.heads,
        kv_heads=mixer.groups,
        head_width=mixer.width_of_head(spec.width),
        hidden=feedforward.hidden,
        theta=mixer.rotary.theta,
        eps=norm.eps,
    )
