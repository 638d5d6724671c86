"""Batch normalisation of vectors (Ioffe and Szegedy 2015): the batch's statistics in training, running ones after."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class BatchNormSpec:
    """``(x − mean) / sqrt(var + eps) · weight + bias`` with mean and variance over the batch and all positions.

    In training a token's vector depends on the batch it is in, later tokens and padding included; after training on
    nothing but itself. Language models therefore prefer norms over the vector; this is what came before them.

    Attributes:
        eps: keeps the division finite.
        momentum: the share of each batch in the running statistics.
    """

    eps: float = 1e-5
    momentum: float = 0.1

    def build(self, d_model: int) -> "BatchNorm":
        return BatchNorm(d_model, self)


class BatchNorm(nn.BatchNorm1d):
    """Normalises the last dimension over all others, where torch's own wants the channels second; see the spec."""

    def __init__(self, d_model: int, spec: BatchNormSpec):
        super().__init__(d_model, eps=spec.eps, momentum=spec.momentum)
        self.spec = spec

    def forward(self, input: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        return super().forward(input.flatten(0, -2)).view(input.shape)
