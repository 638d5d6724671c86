"""Rotary position embedding: positions as rotations of query and key (Su et al. 2021, RoFormer)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.nn.reading import Reading


@dataclass(frozen=True, kw_only=True)
class RotarySpec:
    """Rotates pairs of head dimensions by ``position · theta^(−2i/K)`` (RoFormer eqs 14–15).

    The pairs are (i, i + K/2), the half-split layout of Hugging Face checkpoints; the interleaved layout of Meta's
    original files pairs (2i, 2i + 1) and is the same function after a permutation of the projection's rows.
    """

    theta: float = 10_000.0

    def frequencies(
        self, head_width: int, device: torch.device, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "pairs"]:
        """Angle per position of each pair, in radians."""
        pair = torch.arange(0, head_width, 2, device=device, dtype=dtype)
        return 1.0 / self.theta ** (pair / head_width)

    def tables(self, reading: Reading, head_width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines for the new tokens of a pass, each (B, 1, T, K/2), computed once per pass.

        They are fp32 for queries of any type (large positions need it), fp64 for those of fp64.
        """
        positions_BT = reading.positions_BT
        wide = torch.promote_types(dtype, torch.float32)
        return reading.once(
            (self, head_width, wide),
            lambda: _tables(positions_BT, self.frequencies(head_width, positions_BT.device, wide)),
        )


def _tables(positions_BT: Int[Tensor, "B T"], frequencies: Float[Tensor, "pairs"]) -> tuple[Tensor, Tensor]:
    angles = positions_BT[:, None, :, None].to(frequencies.dtype) * frequencies
    return angles.cos(), angles.sin()


def rotate(x_BHTK: Float[Tensor, "B H T K"], tables: tuple[Tensor, Tensor]) -> Float[Tensor, "B H T K"]:
    """Turns each pair (i, i + K/2) of every head by its token's angle; the type of `x` is kept."""
    cos, sin = (table.to(x_BHTK.dtype) for table in tables)
    first, second = x_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
