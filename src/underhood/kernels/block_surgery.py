"""Block-quantised weights put into a built model, in the place of its linear layers and its embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from underhood.kernels.block_linear import BlockEmbedding, BlockKind, BlockLinear
from underhood.nn.softcap import SoftcappedLinear, apply_softcap


class BlockRows(NamedTuple):
    """A matrix as a file stores it: the bytes of each row, (O, bytes)."""

    rows_OX: NDArray[np.uint8]
    kind: BlockKind


class SoftcappedBlocks(nn.Module):
    """`SoftcappedLinear` with block-quantised weights."""

    def __init__(self, linear: BlockLinear, cap: float):
        super().__init__()
        self.linear, self.cap = linear, cap
        self.in_features, self.out_features = linear.in_features, linear.out_features

    def forward(self, x: Tensor) -> Tensor:
        return apply_softcap(self.linear(x), self.cap)


def takes_blocks(model: nn.Module, name: str) -> bool:
    """Whether a parameter is the matrix of a layer that `use_blocks` can replace; position embeddings stay plain."""
    path, _, kind = name.rpartition(".")
    module = model.get_submodule(path)
    known = type(module) is nn.Linear or isinstance(module, SoftcappedLinear)
    return kind == "weight" and (known or (path == "embed" and isinstance(module, nn.Embedding)))


def use_blocks(model: nn.Module, matrices: Mapping[str, BlockRows], *, tied: bool) -> None:
    """Replaces the layers that hold these parameters, named as in the model; biases are kept.

    Args:
        tied: the unembedding is the embedding's matrix.

    Raises:
        ValueError: a matrix has another shape than the parameter.
    """
    for name, matrix in matrices.items():
        path = name.rpartition(".")[0]
        old = model.get_submodule(path)
        bias = old.bias if isinstance(old, nn.Linear) else None
        linear = BlockLinear.from_blocks(*matrix, bias)
        if (shape := (linear.out_features, linear.in_features)) != tuple(model.get_parameter(name).shape):
            raise ValueError(f"{name} has the shape {tuple(model.get_parameter(name).shape)}, got {shape}")
        _put(model, path, _as_layer(linear, old))
        if tied and isinstance(old, nn.Embedding):
            _put(model, "unembed", _as_layer(linear, model.get_submodule("unembed")))


def _as_layer(linear: BlockLinear, old: nn.Module) -> nn.Module:
    """What takes the place of a layer."""
    if isinstance(old, nn.Embedding):
        return BlockEmbedding(linear, getattr(old, "scale", 1.0))
    return SoftcappedBlocks(linear, old.cap) if isinstance(old, SoftcappedLinear) else linear


def _put(model: nn.Module, path: str, layer: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)
