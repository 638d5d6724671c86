"""Linear layers that are quick for a handful of tokens, as when several texts are written at the same time.

For one token a product is a reading of the weights, for hundreds it is arithmetic; in between, BLAS libraries are at
their weakest, for their kernels want many rows. The transposed product ``W xᵀ`` has many rows and few columns, and is
up to a third faster there. Its result is the transpose in memory too; nothing but strides tells the difference, and a
layer that takes it as its input has its own transpose for free.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.nn.surgery import replace_modules

FEWEST, MOST = 3, 32
"""Tokens for which the transposed product is the faster one."""


class FewRowsLinear(nn.Linear):
    """``x Wᵀ + b``, by the transposed product where that is faster; shares the weights of `linear`."""

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, input: Tensor) -> Tensor:
        count = input.numel() // self.in_features
        if not FEWEST <= count <= MOST:
            return F.linear(input, self.weight, self.bias)
        y_NO = torch.mm(self.weight, input.reshape(count, self.in_features).t()).t()
        return (y_NO if self.bias is None else y_NO + self.bias).view(*input.shape[:-1], self.out_features)


def for_few_rows(model: nn.Module, *, targets: tuple[str, ...] = ("blocks.*", "unembed")) -> list[str]:
    """Replaces the plain linear layers named by `targets`, for inference on a CPU; returns their names."""
    return replace_modules(model, targets, lambda _, layer: _few(layer), nn.Linear)


def _few(layer: nn.Linear) -> nn.Module:
    return FewRowsLinear(layer) if type(layer) is nn.Linear else layer
