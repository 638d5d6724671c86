"""Linear layers whose frozen weight is held in 8 or 4 bits: what QLoRA trains adapters on (Dettmers et al. 2023).

Rounding to nearest, nothing learnt: 8 bits take one scale per output row (LLM.int8()'s row-wise absmax, Dettmers et al.
2022), 4 bits a scale and an offset per group of neighbouring inputs, two values to a byte. The weight is widened when
it is used and thrown away again; backward widens it once more rather than keep it. So a layer costs its few bits plus,
for the moment of its own product, one matrix in full.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underhood.nn.surgery import replace_modules

Bits = Literal[8, 4]


class QuantizedLinear(nn.Module):
    """``x Wᵀ + b`` with a frozen W of 8 or 4 bits; gradients flow to x only.

    Args:
        linear: the layer to quantise; its bias is kept as it is, frozen.
        group: inputs that share a scale in 4 bits; the number of inputs must be a multiple of it.
    """

    packed: Tensor
    scale: Tensor
    offset: Tensor | None
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, bits: Bits, *, group: int = 64):
        super().__init__()
        self.in_features, self.out_features, self.bits = linear.in_features, linear.out_features, bits
        weight = linear.weight.detach()
        self.dtype = weight.dtype
        if bits == 8:
            self.group = linear.in_features
            packed, scale, offset = *to_int8(weight.float()), None
        else:
            self.group = min(group, linear.in_features)
            if linear.in_features % self.group or linear.in_features % 2:
                raise ValueError(
                    f"inputs must be even and a multiple of the group, got {linear.in_features} and {self.group}"
                )
            packed, scale, offset = _to_int4(weight.float(), self.group)
        self.register_buffer("packed", packed)
        self.register_buffer("scale", scale)
        self.register_buffer("offset", offset)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = _FrozenProduct.apply(x, self)  # type: ignore[assignment]
        return y if self.bias is None else y + self.bias

    def weight(self, dtype: torch.dtype | None = None) -> Tensor:
        """The dequantised weight, (out, in)."""
        dtype = dtype or self.dtype
        if self.offset is None:
            return self.packed.to(dtype) * self.scale.to(dtype)
        low, high = self.packed & 15, self.packed >> 4
        codes_OGI = torch.stack([low, high], dim=-1).view(self.out_features, -1, self.group).to(dtype)
        return (codes_OGI.sub_(self.offset.to(dtype)).mul_(self.scale.to(dtype))).view(self.out_features, -1)

    def widened(self) -> nn.Linear:
        """A plain layer with the rounded weight."""
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None, device="meta")
        plain.weight = nn.Parameter(self.weight(), requires_grad=False)
        if self.bias is not None:
            plain.bias = nn.Parameter(self.bias.clone(), requires_grad=False)
        return plain

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, bits={self.bits}, group={self.group}"


class _FrozenProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: QuantizedLinear) -> Tensor:
        ctx.layer = layer
        return F.linear(x, layer.weight(x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad @ ctx.layer.weight(grad.dtype), None


def quantize_linears(
    model: nn.Module, bits: Bits, *, targets: tuple[str, ...] = ("blocks.*",), group: int = 64
) -> list[str]:
    """Replaces the linear layers named by `targets` with frozen ones of `bits` bits; returns their names.

    Raises:
        UserError: a target fits no linear layer.
        ValueError: a layer's inputs can't be split into groups.
    """
    return replace_modules(model, targets, lambda _, layer: QuantizedLinear(layer, bits, group=group), nn.Linear)


def to_int8(weight_OI: Tensor) -> tuple[Tensor, Tensor]:
    scale_O1 = weight_OI.abs().amax(dim=1, keepdim=True).clamp_(min=1e-12) / 127
    return (weight_OI / scale_O1).round_().to(torch.int8), scale_O1


def _to_int4(weight_OI: Tensor, group: int) -> tuple[Tensor, Tensor, Tensor]:
    """Codes 0 to 15 with ``w ≈ (code − offset) · scale``; the range of a group always holds 0, so that 0 stays 0."""
    grouped_OGI = weight_OI.view(weight_OI.shape[0], -1, group)
    low_OG1 = grouped_OGI.amin(dim=-1, keepdim=True).clamp_(max=0)
    high_OG1 = grouped_OGI.amax(dim=-1, keepdim=True).clamp_(min=0)
    scale_OG1 = ((high_OG1 - low_OG1) / 15).clamp_(min=1e-12)
    offset_OG1 = (-low_OG1 / scale_OG1).round_()
    codes_OGI = (grouped_OGI / scale_OG1).round_().add_(offset_OG1).clamp_(0, 15).to(torch.uint8)
    pairs = codes_OGI.view(weight_OI.shape[0], -1, 2)
    # The offsets are whole numbers up to 15, so a byte holds them; scales stay in fp32 (1/64 of the weights).
    return pairs[..., 0] | (pairs[..., 1] << 4), scale_OG1, offset_OG1.to(torch.uint8)
