"""Soft caps: scores pressed smoothly into an interval (Gemma 2 2024, section 2; Bello et al. 2016 before it)."""

from __future__ import annotations

from torch import Tensor, nn


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """``cap · tanh(x / cap)``: near the identity for small scores, never beyond ±cap."""
    return cap * (x / cap).tanh()


class CappedLinear(nn.Linear):
    """A linear map without bias whose outputs are softly capped: Gemma 2's unembedding."""

    def __init__(self, in_features: int, out_features: int, cap: float):
        super().__init__(in_features, out_features, bias=False)
        self.cap = cap

    def forward(self, input: Tensor) -> Tensor:
        return soft_cap(super().forward(input), self.cap)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, cap={self.cap}"
