"""Normalisation layers: RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class NormSpec(Protocol):
    """A slot that takes any normalisation over the last dimension."""

    def build(self, width: int) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class RMSNormSpec:
    """``x / sqrt(mean(x²) + eps) · weight``: scale only, no centring, no bias."""

    eps: float = 1e-6

    def build(self, width: int) -> "RMSNorm":
        return RMSNorm(width, self)


@dataclass(frozen=True, kw_only=True)
class LayerNormSpec:
    """``(x − mean) / sqrt(var + eps) · weight + bias``, as GPT-2 uses it."""

    eps: float = 1e-5
    bias: bool = True

    def build(self, width: int) -> nn.LayerNorm:
        return nn.LayerNorm(width, eps=self.eps, bias=self.bias)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension, computed in fp32 at least (fp64 stays fp64).

    Source: Zhang & Sennrich 2019, eq. 4.
    """

    def __init__(self, width: int, spec: RMSNormSpec):
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        if x.dtype in (torch.float32, torch.float64):
            return F.rms_norm(x, self.weight.shape, self.weight, self.spec.eps)
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.spec.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.spec.eps}"
