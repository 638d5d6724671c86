"""Linear layers that are quick for a handful of tokens, as when several texts are written at the same time.

For one token a product is a reading of the weights, for hundreds it is arithmetic; in between, BLAS libraries lose time
to copying the weights into the order that their kernels like. The transposed product ``W xᵀ``, in blocks of a few rows
of W each, has too little to copy: it runs as fast as the weights can be read, twice as fast as the plain product of 16
tokens. Its result is the transpose in memory too; nothing but strides tells the difference, and a layer that takes it
as its input has its own transpose for free. So the residual stream is laid out like that from the embedding on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.nn.surgery import find_modules, replace_modules

FEWEST, MOST = 4, 256
"""Tokens for which the transposed product is the faster one."""

BLOCKS, LONG_BLOCKS = (64, 32, 128, 16), (128, 64, 32, 16)
"""Rows of W in a block, the best first; the first that divides them is taken. The long ones are for a prompt."""

MANY = 65
"""Tokens from which on long blocks are the faster ones."""


class FewRowsLinear(nn.Linear):
    """``x Wᵀ + b``, by the transposed product where that is faster; shares the weights of `linear`."""

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.rows, self.rows_for_many = (_first_divisor(linear.out_features, sizes) for sizes in (BLOCKS, LONG_BLOCKS))

    def forward(self, input: Tensor) -> Tensor:
        count = input.numel() // self.in_features
        if not FEWEST <= count <= MOST:
            return F.linear(input, self.weight, self.bias)
        x_IN = input.reshape(count, self.in_features).t().contiguous()
        rows = self.rows if count < MANY else self.rows_for_many
        blocks = self.weight.view(-1, rows, self.in_features)
        y_NO = torch.bmm(blocks, x_IN.expand(len(blocks), -1, -1)).view(self.out_features, count).t()
        return (y_NO if self.bias is None else y_NO + self.bias).view(*input.shape[:-1], self.out_features)


def _first_divisor(number: int, sizes: tuple[int, ...]) -> int:
    return next((size for size in sizes if number % size == 0), number)


def for_few_rows(model: nn.Module, *, targets: tuple[str, ...] = ("blocks.*", "unembed")) -> list[str]:
    """Replaces the plain linear layers among those named by `targets`, for inference on a CPU; returns their names."""
    # A subclass does more than the product.
    plain = [name for name, layer in find_modules(model, targets, nn.Linear) if type(layer) is nn.Linear]
    if not plain:
        return []
    for _, embedding in find_modules(model, ("embed",), nn.Embedding):
        embedding.register_forward_hook(_in_columns)
    return replace_modules(model, plain, lambda _, layer: FewRowsLinear(layer), nn.Linear)


def _in_columns(_: nn.Module, __: object, x_BTD: Tensor) -> Tensor:
    """Behind an embedding: where vectors are few, each becomes a column in memory, and so do their sums and norms."""
    count = x_BTD.shape[0] * x_BTD.shape[1]
    if not FEWEST <= count <= MOST:
        return x_BTD
    return x_BTD.view(count, -1).t().contiguous().t().view(x_BTD.shape)
