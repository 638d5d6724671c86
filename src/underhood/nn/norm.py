"""Normalisation layers: RMSNorm (Zhang & Sennrich 2019) and LayerNorm (Ba et al. 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class NormSpec(Protocol):
    """A slot that takes any normalisation over the last dimension."""

    def build(self, d_model: int) -> nn.Module: ...


@dataclass(frozen=True, kw_only=True)
class RMSNormSpec:
    """``x / sqrt(mean(x²) + eps) · weight``: scale only, no centring, no bias."""

    eps: float = 1e-6

    def build(self, d_model: int) -> "RMSNorm":
        return RMSNorm(d_model, self)


@dataclass(frozen=True, kw_only=True)
class LayerNormSpec:
    """``(x − mean) / sqrt(var + eps) · weight + bias``, as GPT-2 uses it."""

    eps: float = 1e-5
    bias: bool = True

    def build(self, d_model: int) -> nn.LayerNorm:
        return nn.LayerNorm(d_model, eps=self.eps, bias=self.bias)


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the last dimension, computed in fp32 at least (fp64 stays fp64).

    Source: Zhang & Sennrich 2019, eq. 4.
    """

    def __init__(self, d_model: int, spec: RMSNormSpec):
        super().__init__()
        self.spec = spec
        self.weight = nn.Parameter(torch.ones(d_model))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        if x.dtype in (torch.float32, torch.float64):
            return _rms_norm(x, self.weight, self.spec.eps)
        return _rms_norm(x.float(), self.weight.float(), self.spec.eps).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.numel()}, eps={self.spec.eps}"


def _rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    if (
        x.device.type == "cpu"
        and x.dtype == weight.dtype
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    ):
        return cast(Tensor, _OnCpu.apply(x, weight, eps))
    return F.rms_norm(x, weight.shape, weight, eps)


class _OnCpu(torch.autograd.Function):
    """RMSNorm with a backward pass of one fused kernel.

    PyTorch fuses LayerNorm on the CPU but not RMSNorm, whose backward pass it makes of a dozen small operations: ten
    times slower, and a sixth of a small model's training step. LayerNorm's backward kernel serves here as well. Told
    that the mean is 0, it returns ``r (h − mean(h) − n mean(h n))`` for h = gradient · weight, n = x r; RMSNorm's
    gradient is that without the middle term.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        inverse = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, inverse)
        y = (x * inverse).mul_(weight)
        # What reads a norm's output under autocast are products, each of which would narrow it for itself.
        return y.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, inverse = ctx.saved_tensors
        gradient = gradients[0].to(x.dtype).contiguous()
        of_x, of_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient, x, weight.shape, torch.zeros_like(inverse), inverse, weight, None, [True, True, False]
        )
        middle = (gradient @ weight)[..., None].mul_(inverse).div_(x.shape[-1])
        return of_x.add_(middle), of_weight, None
