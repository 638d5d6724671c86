"""RMSNorm whose weight is stored as its difference from one, as the Gemma models have it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class ZeroCenteredRMSNormSpec:
    """``x / sqrt(mean(x²) + eps) · (1 + weight)`` (Gemma 2024, reference code).

    The same function as RMSNorm, in other coordinates: weight decay pulls the scale to one, not to zero, and a bfloat16
    file keeps small differences from one that bfloat16 itself would round away.
    """

    eps: float = 1e-6

    def build(self, d_model: int) -> "ZeroCenteredRMSNorm":
        return ZeroCenteredRMSNorm(d_model, self)


class ZeroCenteredRMSNorm(nn.Module):
    """RMSNorm over the last dimension with scale ``1 + weight``, computed in fp32 at least; see the spec."""

    def __init__(self, d_model: int, spec: ZeroCenteredRMSNormSpec):
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.zeros(d_model))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        wide = torch.promote_types(x.dtype, torch.float32)
        return F.rms_norm(x.to(wide), self.weight.shape, 1 + self.weight.to(wide), self.spec.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.spec.eps}"
