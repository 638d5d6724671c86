"""Rotary position embedding: positions as rotations of query and key (Su et al. 2021, RoFormer)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.nn.forward_context import ForwardContext
from underhood.nn.rope_scaling import RotaryScalingSpec


@dataclass(frozen=True, kw_only=True)
class RotarySpec:
    """Rotates pairs of head dimensions by ``position · theta^(−2i/R)``, R of K dimensions (RoFormer eqs 14–15).

    The pairs are (i, i + R/2), the half-split layout of Hugging Face checkpoints; the interleaved layout of Meta's
    original files pairs (2i, 2i + 1) and is the same function after a permutation of the projection's rows.

    Attributes:
        theta: the base; larger ones turn the slow pairs more slowly.
        scaling: stretches the angles for longer contexts, or None.
        fraction: share R / K of each head that is rotated, from its front; the rest has no position.
    """

    theta: float = 10_000.0
    scaling: RotaryScalingSpec | None = None
    fraction: float = 1.0

    def frequencies(
        self, head_dim: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "pairs"]:
        """Angle per position of each pair, in radians."""
        rotated = int(head_dim * self.fraction)
        pair = torch.arange(0, rotated, 2, device=device, dtype=dtype)
        plain = 1.0 / self.theta ** (pair / rotated)
        return plain if self.scaling is None else self.scaling.scale(plain, self.theta)

    def tables(self, ctx: ForwardContext, head_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines for the new tokens of a pass, each (B, 1, T, R), computed once per pass.

        Both halves hold the R/2 angles, the first half of the sines with a minus: what `rotate` multiplies by. They are
        fp32 for queries of any type (large positions need it), fp64 for those of fp64.
        """
        positions_BT = ctx.positions_BT
        wide = torch.promote_types(dtype, torch.float32)
        amplitude = 1.0 if self.scaling is None else self.scaling.amplitude
        return ctx.once(
            (self, head_dim, wide),
            lambda: _tables(positions_BT, self.frequencies(head_dim, positions_BT.device, wide), amplitude),
        )


def _tables(
    positions_BT: Int[Tensor, "B T"], frequencies: Float[Tensor, "pairs"], amplitude: float
) -> tuple[Tensor, Tensor]:
    angles = positions_BT[:, None, :, None].to(frequencies.dtype) * frequencies
    cos, sin = angles.cos(), angles.sin()
    if amplitude != 1.0:
        cos, sin = cos * amplitude, sin * amplitude
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x_BHTK: Float[Tensor, "B H T K"], tables: tuple[Tensor, Tensor]) -> Float[Tensor, "B H T K"]:
    """Turns each pair (i, i + R/2) of every head by its token's angle; the type of `x` is kept."""
    cos, sin = (table.to(x_BHTK.dtype) for table in tables)
    rotated = cos.shape[-1]
    if rotated != x_BHTK.shape[-1]:
        front, rest = x_BHTK[..., :rotated], x_BHTK[..., rotated:]
        return torch.cat((rotate(front, tables), rest), dim=-1)
    return torch.addcmul(x_BHTK * cos, x_BHTK.roll(rotated // 2, dims=-1), sin)
