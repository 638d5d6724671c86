"""Weight-only quantised linear layers (8 and 4 bits), multiplied without widening them: fast decoding on a CPU.

While one text is written, each weight is read from memory once per token, and that takes most of the time; a quarter or
an eighth of the bytes is nearly that much faster. Only the weights are rounded coarsely: activations keep 16 bits (see
`kernels.matmul`). `nn.qlora_linear` is for training: it saves memory and widens a matrix before each product.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from underhood.kernels.elementwise import array
from underhood.kernels.jit import uses_kernels
from underhood.kernels.matmul import GROUP, NONE, ROW_MULTIPLE, Weights, multiply
from underhood.nn.qlora_linear import to_int8

Product = Callable[[NDArray[np.float32], NDArray[np.float32]], None]
"""``y = x Wᵀ + b``, called with x (N, I) and the memory of y (N, O), both contiguous."""


class WeightOnlyLinear(nn.Module):
    """``x Wᵀ + b`` with W in few bits, on the CPU.

    The weights are plain attributes, not buffers: packed bits are not numbers that a change of dtype could convert.
    """

    def __init__(self, inputs: int, outputs: int, bias: Tensor | None):
        super().__init__()
        self.in_features, self.out_features = inputs, outputs
        self.bias = None if bias is None else bias.detach().float()

    @property
    def packed_parameters(self) -> int:
        """How many parameters it holds that are no `nn.Parameter`."""
        return self.in_features * self.out_features + (0 if self.bias is None else self.out_features)

    def forward(self, x: Tensor) -> Tensor:
        if not uses_kernels():
            return F.linear(x, self.weight().to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
        x_NI = x.detach().reshape(-1, self.in_features).float().contiguous()
        y_NO = torch.empty(len(x_NI), self.out_features)
        self.product()(x_NI.numpy(), y_NO.numpy())
        return y_NO.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def product(self) -> Product:
        """The compiled kernel with these weights."""
        raise NotImplementedError

    def weight(self) -> Tensor:
        """The dequantised weight, (out, in)."""
        raise NotImplementedError

    def bias_array(self) -> NDArray[np.float32] | None:
        return None if self.bias is None else self.bias.numpy()

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


class RoundedLinear(WeightOnlyLinear):
    """A plain layer with its weight rounded to few bits.

    Args:
        linear: the layer to quantise; its bias is kept.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, linear.bias)
        weight_OI = F.pad(linear.weight.detach().float(), (0, -linear.in_features % ROW_MULTIPLE))
        self.codes, self.scale, self.offset = self._pack(weight_OI)

    @staticmethod
    def _pack(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Codes, scales and offsets as `Weights` has them."""
        raise NotImplementedError

    def product(self) -> Product:
        offset = NONE if self.offset is None else array(self.offset)
        weights = Weights(array(self.codes), array(self.scale), offset)
        bias = self.bias_array()
        return lambda x_NI, y_NO: multiply(weights, x_NI, bias, y_NO)


class Int8Linear(RoundedLinear):
    """`RoundedLinear` with 8 bits: whole numbers up to ±127, and per output the scale that its largest needs."""

    @staticmethod
    def _pack(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        return *to_int8(weight_OI), None

    def weight(self) -> Tensor:
        return (self.codes.float() * self.scale)[:, : self.in_features]


class Int4Linear(RoundedLinear):
    """`RoundedLinear` with 4 bits, a scale and an offset (both bfloat16) per `GROUP` of neighbouring inputs."""

    @staticmethod
    def _pack(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        codes_OI, scale_OG, offset_OG = round_to_int4(weight_OI)
        low_OGH, high_OGH = codes_OI.view(len(codes_OI), -1, GROUP).chunk(2, dim=-1)
        return (low_OGH | (high_OGH << 4)).flatten(1), scale_OG, offset_OG

    def weight(self) -> Tensor:
        assert self.offset is not None
        codes_OGH = self.codes.view(self.out_features, -1, GROUP // 2)
        codes_OGI = torch.cat((codes_OGH & 15, codes_OGH >> 4), dim=-1).float() - 8
        weight_OGI = codes_OGI * self.scale.float()[..., None] + self.offset.float()[..., None]
        return weight_OGI.flatten(1)[:, : self.in_features]


def round_to_int4(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes 0 to 15 (uint8) with ``w ≈ (code − 8) · scale + offset``, scale and offset (O, groups) in bfloat16.

    The range of a group is narrowed a little where that brings the sum of squared errors down: its outermost weights
    are cut, all others get finer steps. Codes are chosen for scales and offsets that are rounded already.
    """
    grouped_OGI = weight_OI.view(weight_OI.shape[0], -1, GROUP)
    low_OG1, high_OG1 = grouped_OGI.amin(dim=-1, keepdim=True), grouped_OGI.amax(dim=-1, keepdim=True)
    middle_OG1, half_OG1 = (high_OG1 + low_OG1) / 2, ((high_OG1 - low_OG1) / 2).clamp_(min=1e-6)
    best: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
    for shrink in (1.0, 0.95, 0.9, 0.85, 0.8, 0.75):
        scale_OG1 = (half_OG1 * (shrink * 2 / 15)).bfloat16()
        offset_OG1 = (middle_OG1 + scale_OG1.float() / 2).bfloat16()  # codes − 8 run from −8 to 7
        codes_OGI = ((grouped_OGI - offset_OG1.float()) / scale_OG1.float()).round_().clamp_(-8, 7)
        error_OG1 = (codes_OGI * scale_OG1.float() + offset_OG1.float() - grouped_OGI).square_().sum(-1, keepdim=True)
        candidate = (error_OG1, codes_OGI, scale_OG1, offset_OG1)
        if best is None:
            best = candidate
        else:
            better = error_OG1 < best[0]
            best = tuple(torch.where(better, new, old) for new, old in zip(candidate, best, strict=True))  # type: ignore
    assert best is not None
    _, codes_OGI, scale_OG1, offset_OG1 = best
    return codes_OGI.add_(8).to(torch.uint8).view_as(weight_OI), scale_OG1[..., 0], offset_OG1[..., 0]
