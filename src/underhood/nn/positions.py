"""Absolute position embeddings: a vector per position, added to the token embedding (Vaswani et al. 2017, section 3.5).

Rotary positions are in `nn.rope`, positions relative to the query in `nn.relative_attention`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class PositionSpec(Protocol):
    """A slot that takes any absolute position embedding."""

    def build(self, context_length: int, d_model: int) -> nn.Module:
        """A module from positions (…) to vectors (…, D)."""
        ...


@dataclass(frozen=True, kw_only=True)
class LearnedPositionSpec:
    """A learned vector for each of `context_length` positions, as in GPT-2 and BERT; there is none beyond them."""

    def build(self, context_length: int, d_model: int) -> nn.Embedding:
        return nn.Embedding(context_length, d_model)


@dataclass(frozen=True, kw_only=True)
class SinusoidalPositionSpec:
    """Sines and cosines of wavelengths from 2π to ``base · 2π``; nothing to learn and no last position.

    Attributes:
        base: the slowest pair turns by about ``1 / base`` radians per position.
    """

    base: float = 10_000.0

    def build(self, context_length: int, d_model: int) -> "SinusoidalPositions":
        return SinusoidalPositions(context_length, d_model, self.base)


class SinusoidalPositions(nn.Module):
    """Looks sinusoidal position vectors up in a table that grows when a later position is asked for."""

    def __init__(self, context_length: int, d_model: int, base: float):
        super().__init__()
        self.context_length, self.d_model, self.base = context_length, d_model, base
        self._table_CD: Tensor | None = None  # no buffer: a model built on the device "meta" would get an empty one

    def forward(self, positions: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch D"]:
        table_CD = self._table_CD
        needed = int(positions.max()) + 1 if positions.numel() else 0
        if table_CD is None or table_CD.device != positions.device or len(table_CD) < needed:
            rows = torch.arange(max(self.context_length, needed), device=positions.device)
            self._table_CD = table_CD = sinusoids(rows, self.d_model, base=self.base)
        return table_CD[positions]

    def extra_repr(self) -> str:
        return f"{self.d_model}, base={self.base:g}"


def sinusoids(
    positions: Int[Tensor, "*batch"], d_model: int, *, base: float = 10_000.0, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "*batch D"]:
    """``sin(i · w_k)`` at place 2k and ``cos(i · w_k)`` at place 2k + 1, with ``w_k = base^(−2k/D)``.

    A shift by o positions rotates each pair by ``o · w_k``, whatever the position. Other programs put all sines before
    all cosines, which is the same up to an order of the dimensions.
    """
    pair = torch.arange(0, d_model, 2, device=positions.device, dtype=dtype)
    angles = positions[..., None].to(dtype) * base ** (-pair / d_model)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :d_model]
