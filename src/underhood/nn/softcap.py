"""Soft caps: scores pressed smoothly into an interval (Gemma 2 2024, section 2; Bello et al. 2016 before it)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def apply_softcap(x: Tensor, cap: float) -> Tensor:
    """``cap · tanh(x / cap)``: near the identity for small scores, never beyond ±cap."""
    return cap * (x / cap).tanh()


class SoftcappedLinear(nn.Module):
    """A linear map without bias whose outputs are softly capped: Gemma 2's unembedding.

    Not an `nn.Linear`, because it is not linear: surgery on linear layers (LoRA, quantisation) must pass it by, since
    their replacements have no softcap.

    Attributes:
        weight: (out, in).
    """

    weight: Tensor

    def __init__(self, in_features: int, out_features: int, cap: float):
        super().__init__()
        self.in_features, self.out_features, self.cap = in_features, out_features, cap
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        bound = in_features**-0.5  # as a linear layer starts
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        return apply_softcap(F.linear(x, self.weight), self.cap)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features}, cap={self.cap}"
