"""Norms and linear layers of a decode pass, over memory that is allocated once; see `cpu_decoder`."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from underhood.kernels import elementwise, jit
from underhood.kernels.block_linear import BlockLinear
from underhood.kernels.decode_branches import operands
from underhood.kernels.elementwise import array
from underhood.kernels.fused_layers import FinalRMSNorm, UnitRMSNorm, scale_of
from underhood.kernels.matmul import Weights, multiply
from underhood.kernels.small_batch_linear import MATMUL_BATCH_MAX, SmallBatchLinear
from underhood.kernels.weight_only_linear import Product, WeightOnlyLinear
from underhood.nn.norm import RMSNorm
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNorm

DECODE_BATCH_MAX = 64
"""Largest batch of tokens for which these kernels are faster than a tensor library's."""

_NONE = np.empty(0, dtype=np.float32)


class UnsupportedModule(Exception):
    """A module of the model has no compiled kernel; the model's own forward pass has to do."""


class Buffer(NamedTuple):
    """The same memory as tensor and as array; converting one to the other would take longer than most kernels."""

    tensor: Tensor
    array: np.ndarray


class Workspace:
    """Preallocated memory for the results of a pass over `count` tokens."""

    def __init__(self, count: int, memory: dict[tuple[str, int], Tensor]):
        self.count, self._memory = count, memory
        self._buffers: dict[tuple[str, int], Buffer] = {}

    def buffer(self, name: str, width: int) -> Buffer:
        key = (name, width)
        known = self._buffers.get(key)
        if known is None:
            if key not in self._memory:
                self._memory[key] = torch.empty(DECODE_BATCH_MAX * width)
            tensor = self._memory[key][: self.count * width].view(self.count, width)
            known = self._buffers[key] = Buffer(tensor, array(tensor))
        return known


class DecodeNorm:
    """RMSNorm, LayerNorm or no norm."""

    def __init__(self, norm: nn.Module):
        self.centre, self.scale_D, self.shift_D, eps = False, _NONE, _NONE, 0.0
        self.idle = isinstance(norm, nn.Identity)
        if isinstance(norm, (UnitRMSNorm, FinalRMSNorm)):
            eps = norm.eps
            self.scale_D = norm.scale.numpy() if isinstance(norm, FinalRMSNorm) else _NONE
        elif isinstance(norm, (RMSNorm, ZeroCenteredRMSNorm)):
            scale_D, eps = scale_of(norm), norm.spec.eps
            self.scale_D = _NONE if scale_D is None else scale_D.numpy()
        elif isinstance(norm, nn.LayerNorm):
            self.centre, eps = True, norm.eps
            self.scale_D = norm.weight.detach().float().numpy()
            self.shift_D = _NONE if norm.bias is None else norm.bias.detach().float().numpy()
        elif not self.idle:
            raise UnsupportedModule(type(norm).__name__)
        self.eps = np.float32(eps)
        self.arguments = (self.idle, self.centre, self.scale_D, self.shift_D, self.eps)
        """For `decode_branches.normalized`."""

    def __call__(self, x: Buffer, y: Buffer) -> Buffer:
        self.apply(x.array, y.array)
        return y

    def apply(self, x_ND: np.ndarray, y_ND: np.ndarray) -> None:
        if self.idle:
            elementwise.copy(x_ND, y_ND)
        else:
            elementwise.normalize(x_ND, self.centre, self.scale_D, self.shift_D, self.eps, y_ND)


def norm_arguments(post_norm: DecodeNorm | None) -> tuple[Any, ...]:
    """`DecodeNorm.arguments` of a norm that a branch may lack."""
    return _NO_NORM.arguments if post_norm is None else post_norm.arguments


_NO_NORM = DecodeNorm(nn.Identity())


class DecodeLinear:
    """A linear layer, quantised or not."""

    def __init__(self, layer: nn.Module):
        self.layer = layer
        self.inputs, self.outputs = int(layer.in_features), int(layer.out_features)  # type: ignore[arg-type]
        self.product: Product | None = None
        self.operands: tuple[Any, ...] | None = None
        self.batch_max = 0
        if isinstance(layer, WeightOnlyLinear):
            self.product, self.batch_max = layer.product(), DECODE_BATCH_MAX
            if isinstance(layer, BlockLinear):
                self.operands = operands(layer.block_weights(), layer.bias_array())
        elif type(layer) in (SmallBatchLinear, nn.Linear) and jit.runs_compiled(weight_OI := layer.weight.detach()):  # type: ignore[operator]
            weights = Weights(weight_OI.contiguous().numpy())
            bias_O = None if layer.bias is None else layer.bias.detach().numpy()  # type: ignore[operator]
            self.product = lambda x_NI, y_NO: multiply(weights, x_NI, bias_O, y_NO)
            self.batch_max = MATMUL_BATCH_MAX
            self.operands = operands(weights, bias_O)

    def __call__(self, x: Buffer, workspace: Workspace) -> np.ndarray:
        y = workspace.buffer("product", self.outputs)
        self.into(x, y)
        return y.array

    def into(self, x: Buffer, y: Buffer) -> None:
        if self.product is not None and len(x.array) <= self.batch_max:
            self.product(x.array, y.array)
        else:
            y.tensor.copy_(self.layer(x.tensor))


class Branch(NamedTuple):
    """Two layers of a branch that is one kernel, and the largest batch for which it is the fastest."""

    layers: tuple[tuple[Any, ...], tuple[Any, ...]]
    batch_max: int


def branch_of(first: DecodeLinear, second: DecodeLinear) -> Branch | None:
    """None if a layer is none that the kernels know."""
    if first.operands is None or second.operands is None:
        return None
    return Branch((first.operands, second.operands), min(first.batch_max, second.batch_max))
