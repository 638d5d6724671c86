"""Linear layers that multiply whole numbers: weights of 8 bits, and the activations of each token rounded to 8 as well.

Processors have instructions that multiply and add four bytes at a time (VNNI), so what is left of a product is the
reading of its weights. Each output has a scale, and each token one: the largest of its numbers becomes 127. llama.cpp
does the same in blocks of 32. The sums are exact, so what a token gives does not depend on which others it came with.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from underhood.nn import compiled

_MOST, _ZERO = 127, 128
"""Activations are whole numbers from −127 to 127, stored with 128 added."""


class IntegerLinear(nn.Module):
    """``x Wᵀ + b`` with W in 8 bits and x rounded to 8 bits, token by token.

    The kernel is FBGEMM's, which PyTorch brings along on x86.

    Args:
        linear: the layer to quantise; its bias is kept.
    """

    bias: Tensor | None

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        weight_OI = linear.weight.detach().float()
        scale_O = weight_OI.abs().amax(dim=1).clamp_(min=1e-12) / _MOST
        codes_OI = (weight_OI / scale_O[:, None]).round_().to(torch.int8)
        self._packed = _pack(codes_OI, scale_O)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach().float())

    def forward(self, x: Tensor) -> Tensor:
        y = self.product((x if x.dim() == 2 else x.reshape(-1, self.in_features)).float())
        if x.dim() != 2:
            y = y.reshape(*x.shape[:-1], self.out_features)
        if self.bias is not None:
            y = y + self.bias
        return y.to(x.dtype)

    def product(self, x_NI: Tensor) -> Tensor:
        """``x Wᵀ`` of float32 rows."""
        if len(x_NI) == 1:
            return _PRODUCT(x_NI, max(compiled.largest(x_NI.numpy()), 1e-12) / _MOST, _ZERO, self._packed)
        scale_N1 = x_NI.abs().amax(dim=1, keepdim=True).clamp_(min=1e-12).div_(_MOST)
        return _PRODUCT(x_NI / scale_N1, 1.0, _ZERO, self._packed).mul_(scale_N1)

    @property
    def bytes(self) -> int:
        """Memory of the weights."""
        return self.out_features * (self.in_features + 4)

    def weight(self) -> Tensor:
        """The weight that the layer stands for, (out, in)."""
        quantized, _ = torch.ops.quantized.linear_unpack(self._packed)
        scale_O = quantized.q_per_channel_scales().float()
        return quantized.int_repr().float() * scale_O[:, None]

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


_PRODUCT: Any = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32


def multiplies_integers() -> bool:
    """Whether this machine has the kernel and the instructions; without the latter, sums of 16 bits would overflow."""
    return "fbgemm" in torch.backends.quantized.supported_engines and bool(torch.cpu._is_vnni_supported())


def _pack(codes_OI: Tensor, scale_O: Tensor) -> Any:
    """The codes in FBGEMM's own order."""
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = "fbgemm"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that tensors of this kind will go; the kernel's input is all they are for
            offset_O = torch.zeros(len(scale_O), dtype=torch.long)
            make: Any = getattr(torch, "_make_per_channel_quantized_tensor")  # noqa: B009 - it has no public name
            weight = make(codes_OI, scale_O.double(), offset_O, 0)
            return torch.ops.quantized.linear_prepack(weight, None)
    finally:
        torch.backends.quantized.engine = before
