"""Linear layers for small batches on a CPU: the few tokens of a decode pass, and the few hundred of a prompt.

For one token a product is limited by reading the weights, for hundreds by arithmetic. In between, BLAS libraries lose
time on copying the weights into the order that their kernels need. Up to `MATMUL_BATCH_MAX` tokens `kernels.matmul`
runs at memory speed. For more, the transposed product ``W xᵀ``, in blocks of a few rows of W, has little to copy. Its
result is transposed in memory too; only the strides differ, and the next such layer gets its own transpose for free.
So the residual stream of a prompt is column-major from the embedding on.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.kernels import elementwise, jit
from underhood.kernels.matmul import Weights, multiply
from underhood.nn.surgery import find_modules, replace_modules

MATMUL_BATCH_MAX, TRANSPOSED_BATCH_MAX = 24, 256
"""Batch sizes up to which `kernels.matmul` is the fastest, and then the transposed product."""

BLOCK_ROWS, LONG_BLOCK_ROWS = (64, 32, 128, 16), (128, 64, 32, 16)
"""Rows of W in a block, the best first; the first that divides the rows is taken. The long ones are for prompts."""

LONG_BATCH_MIN = 65
"""Batch size from which long blocks are faster."""


class SmallBatchLinear(nn.Linear):
    """``x Wᵀ + b``, by the transposed product where that is faster; shares the weights of `linear`."""

    def __init__(self, linear: nn.Linear):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        if not self.weight.is_contiguous():
            self.weight = nn.Parameter(self.weight.detach().contiguous(), requires_grad=False)
        self.rows, self.long_rows = (
            _first_divisor(linear.out_features, sizes) for sizes in (BLOCK_ROWS, LONG_BLOCK_ROWS)
        )

    def forward(self, input: Tensor) -> Tensor:
        count = input.numel() // self.in_features
        if count <= MATMUL_BATCH_MAX and jit.runs_compiled(self.weight) and jit.runs_compiled(input):
            y_NO = torch.empty(count, self.out_features)
            bias_O = None if self.bias is None else self.bias.detach().numpy()
            x_NI = input.reshape(count, self.in_features).contiguous()
            multiply(Weights(self.weight.numpy()), x_NI.numpy(), bias_O, y_NO.numpy())
            return y_NO.view(*input.shape[:-1], self.out_features)
        if not MATMUL_BATCH_MAX < count <= TRANSPOSED_BATCH_MAX:
            return F.linear(input, self.weight, self.bias)
        y_ON = input.new_empty(self.out_features, count)
        self._columns(_columns(input.reshape(count, self.in_features)), y_ON)
        return y_ON.t().view(*input.shape[:-1], self.out_features)

    def _columns(self, x_IN: Tensor, y_ON: Tensor) -> None:
        """``y = W x + b``: the product for vectors that are columns in memory, into columns."""
        count = x_IN.shape[1]
        rows = self.rows if count < LONG_BATCH_MIN else self.long_rows
        blocks = self.weight.view(-1, rows, self.in_features)
        torch.bmm(blocks, x_IN.expand(len(blocks), -1, -1), out=y_ON.view(-1, rows, count))
        if self.bias is not None:
            y_ON += self.bias[:, None]


class SmallBatchEmbedding(nn.Module):
    """`nn.Embedding` that lays small batches out in columns, and so their sums and norms."""

    def __init__(self, table: nn.Embedding):
        super().__init__()
        self.table, self.embedding_dim, self.scale = table, table.embedding_dim, getattr(table, "scale", 1.0)

    @property
    def weight(self) -> Tensor:
        return self.table.weight

    def forward(self, tokens_BT: Tensor) -> Tensor:
        x_BTD = self.table(tokens_BT)
        if not MATMUL_BATCH_MAX < tokens_BT.numel() <= TRANSPOSED_BATCH_MAX:
            return x_BTD
        return x_BTD.view(tokens_BT.numel(), -1).t().contiguous().t().view(x_BTD.shape)


def _columns(x_NI: Tensor) -> Tensor:
    """The transpose (I, N), contiguous; no copy if it is already."""
    x_IN = x_NI.t()
    if x_IN.is_contiguous() or not jit.runs_compiled(x_NI):
        return x_IN.contiguous()
    y_IN = torch.empty(x_IN.shape)
    jit.run_parallel(elementwise.transpose, x_NI.numpy(), y_IN.numpy())
    return y_IN


def _first_divisor(number: int, sizes: tuple[int, ...]) -> int:
    return next((size for size in sizes if number % size == 0), number)


def use_small_batch_linears(model: nn.Module, *, targets: tuple[str, ...] = ("blocks.*", "unembed")) -> list[str]:
    """Replaces the plain linear layers among those named by `targets`, for inference on a CPU; returns their names."""
    # A subclass computes more than the product.
    plain = [name for name, layer in find_modules(model, targets, nn.Linear) if type(layer) is nn.Linear]
    if not plain:
        return []
    for name, embedding in list(find_modules(model, ("embed",), nn.Embedding)):
        replace_modules(model, name, lambda *_, table=embedding: SmallBatchEmbedding(table), nn.Embedding)
    return replace_modules(model, plain, lambda _, layer: SmallBatchLinear(layer), nn.Linear)
