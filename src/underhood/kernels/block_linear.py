"""Linear layers and embeddings with block-quantised weights, as GGUF files store them: Q4_0, Q4_1, Q8_0.

The bits of a file are kept: `BlockLinear.weight` gives what llama.cpp's own formulas give. Nothing is widened before it
is used; an embedding widens the rows that it looks up.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from underhood.kernels.block_matmul import BlockWeights, interleave, multiply_blocks
from underhood.kernels.block_simd import BLOCK, PANEL
from underhood.kernels.jit import uses_kernels
from underhood.kernels.weight_only_linear import Product, WeightOnlyLinear

BlockKind = Literal["q4_0", "q4_1", "q8_0"]

BLOCK_BYTES: dict[BlockKind, int] = {"q4_0": 18, "q4_1": 20, "q8_0": 34}
"""Stored size of 32 weights: a float16 scale, in Q4_1 a float16 offset, and the codes."""

_NO_OFFSET = np.empty((0, 0, 0), dtype=np.float32)


class BlockLinear(WeightOnlyLinear):
    """``x Wᵀ + b`` with W in blocks of 32 columns (see `block_matmul.BlockWeights`); made by `from_blocks`.

    Args:
        codes_PBX: int8 or uint8 codes in panels.
        scale_PBR, offset_PBR: float16; None for no offset.
        outputs: rows of W.
    """

    def __init__(
        self, codes_PBX: Tensor, scale_PBR: Tensor, offset_PBR: Tensor | None, outputs: int, bias: Tensor | None = None
    ):
        super().__init__(scale_PBR.shape[1] * BLOCK, outputs, bias)
        self.codes, self.scale, self.offset = codes_PBX, scale_PBR, offset_PBR

    @classmethod
    def from_blocks(cls, rows_OX: NDArray[np.uint8], kind: BlockKind, bias: Tensor | None = None) -> BlockLinear:
        """A layer of the stored bytes of each row of W.

        Raises:
            ValueError: the length of a row is not a multiple of the block.
        """
        (outputs, size), block = rows_OX.shape, BLOCK_BYTES[kind]
        if size % block or not outputs:
            raise ValueError(f"rows of {kind} have a multiple of {block} bytes, got {outputs} rows of {size}")
        words_OBW = np.ascontiguousarray(rows_OX).view(np.uint16).reshape(outputs, -1, block // 2)
        scale = _panels(words_OBW, 0, 1, 1).flatten(2).view(torch.float16)
        if kind == "q8_0":
            return cls(_panels(words_OBW, 1, BLOCK // 2, 1).flatten(2).view(torch.int8), scale, None, outputs, bias)
        offset = _panels(words_OBW, 1, 1, 1).flatten(2).view(torch.float16) if kind == "q4_1" else None
        codes = _panels(words_OBW, block // 2 - 8, 4, 2).flatten(2).view(torch.uint8)
        return cls(codes, scale, offset, outputs, bias)

    @classmethod
    def joined(cls, layers: Sequence[BlockLinear]) -> BlockLinear:
        """One layer with the outputs of all, one after the other.

        Raises:
            ValueError: `joinable` is false.
        """
        if not joinable(layers):
            raise ValueError("these layers have different kinds, or rows that do not fill panels")
        offsets = [layer.offset for layer in layers if layer.offset is not None]
        biases = [layer.bias for layer in layers if layer.bias is not None]
        return cls(
            torch.cat([layer.codes for layer in layers]),
            torch.cat([layer.scale for layer in layers]),
            torch.cat(offsets) if offsets else None,
            sum(layer.out_features for layer in layers),
            torch.cat(biases) if biases else None,
        )

    @property
    def kind(self) -> BlockKind:
        if self.codes.dtype == torch.int8:
            return "q8_0"
        return "q4_0" if self.offset is None else "q4_1"

    def rows(self, ids: Tensor) -> Tensor:
        """Some rows of W, dequantised: (…, in) in float32."""
        shape, ids = ids.shape, ids.flatten()
        panel, lane = ids // PANEL, ids % PANEL
        codes_NBX = self._by_row()[panel, :, :, lane].flatten(2)
        offset_NB = None if self.offset is None else self.offset[panel, :, lane]
        return self._widened(codes_NBX, self.scale[panel, :, lane], offset_NB).view(*shape, self.in_features)

    def weight(self) -> Tensor:
        codes_NBX = self._by_row().permute(0, 3, 1, 2, 4).flatten(0, 1).flatten(2)
        scale_NB, offset_NB = (
            None if x is None else x.transpose(1, 2).flatten(0, 1) for x in (self.scale, self.offset)
        )
        assert scale_NB is not None
        return self._widened(codes_NBX, scale_NB, offset_NB).flatten(1)[: self.out_features]

    def _by_row(self) -> Tensor:
        """The codes as (panels, blocks, units, PANEL, bytes of a unit)."""
        return self.codes.view(*self.codes.shape[:2], -1, PANEL, 2 if self.kind == "q8_0" else 4)

    def _widened(self, codes_NBX: Tensor, scale_NB: Tensor, offset_NB: Tensor | None) -> Tensor:
        """Values of the blocks of rows, from their bytes; each product and sum is rounded, as in gguf's formulas."""
        scale_NB1 = scale_NB.float()[..., None]
        if self.kind == "q8_0":
            return codes_NBX.float().mul_(scale_NB1)
        codes_NBI = torch.cat((codes_NBX & 15, codes_NBX >> 4), dim=-1).float()
        if offset_NB is None:
            return codes_NBI.sub_(8).mul_(scale_NB1)
        return codes_NBI.mul_(scale_NB1).add_(offset_NB.float()[..., None])

    def block_weights(self) -> BlockWeights:
        """The memory of the weights, for `multiply_blocks`."""
        offset = _NO_OFFSET if self.offset is None else self.offset.view(torch.uint16).numpy()
        return BlockWeights(self.codes.numpy(), self.scale.view(torch.uint16).numpy(), offset, self.out_features)

    def product(self) -> Product:
        weights, bias = self.block_weights(), self.bias_array()
        return lambda x_NI, y_NO: multiply_blocks(weights, x_NI, bias, y_NO)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.kind}"


def joinable(layers: Sequence[nn.Module]) -> bool:
    """Whether all are block-quantised alike, with rows that fill whole panels."""
    blocks = [layer for layer in layers if isinstance(layer, BlockLinear)]
    return (
        len(blocks) == len(layers)
        and len({(layer.kind, layer.in_features, layer.bias is None) for layer in blocks}) == 1
        and all(layer.out_features % PANEL == 0 for layer in blocks[:-1])
    )


class StackedBlocks(WeightOnlyLinear):
    """Block-quantised layers of any kinds that read the same vector; their outputs one after the other."""

    def __init__(self, layers: Sequence[BlockLinear]):
        super().__init__(layers[0].in_features, sum(layer.out_features for layer in layers), None)
        self.layers = nn.ModuleList(layers)

    def weight(self) -> Tensor:
        return torch.cat([layer.weight() for layer in self._blocks()])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([layer(x) for layer in self._blocks()], dim=-1)

    def product(self) -> Product:
        ends = accumulate(layer.out_features for layer in self._blocks())
        parts = [
            (layer.block_weights(), layer.bias_array(), end - layer.out_features)
            for layer, end in zip(self._blocks(), ends, strict=True)
        ]

        def run(x_NI: NDArray[np.float32], y_NO: NDArray[np.float32]) -> None:
            for weights, bias, first in parts:
                multiply_blocks(weights, x_NI, bias, y_NO, first)

        return run

    def _blocks(self) -> Sequence[BlockLinear]:
        return self.layers  # type: ignore[return-value]


def stacked(layers: Sequence[BlockLinear]) -> BlockLinear | StackedBlocks:
    """Layers that read the same vector as one: of one matrix, if they are alike."""
    return BlockLinear.joined(layers) if joinable(layers) else StackedBlocks(layers)


class BlockEmbedding(nn.Module):
    """`nn.Embedding` over block-quantised rows, widened when they are looked up.

    Args:
        table: the rows; a tied unembedding is the same layer.
        scale: what every vector is multiplied by.
    """

    def __init__(self, table: BlockLinear, scale: float = 1.0):
        super().__init__()
        self.table, self.scale = table, scale
        self.num_embeddings, self.embedding_dim = table.out_features, table.in_features

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table.rows(tokens)
        return x if self.scale == 1.0 else x * self.scale


def _panels(words_OBW: NDArray[np.uint16], first: int, units: int, size: int) -> Tensor:
    """Interleaved rows (P, B, units, PANEL, size) of units of `size` words each; see `block_matmul.interleave`."""
    outputs, blocks, _ = words_OBW.shape
    panels = -(-outputs // PANEL)
    units_PBURW = np.zeros((panels, blocks, units, PANEL, size), dtype=np.uint16)
    if uses_kernels():
        interleave(words_OBW, first, units_PBURW)
    else:
        rows_OBUW = words_OBW[:, :, first : first + units * size].reshape(outputs, blocks, units, size)
        padded = np.zeros((panels * PANEL, blocks, units, size), dtype=np.uint16)
        padded[:outputs] = rows_OBUW
        units_PBURW[:] = padded.reshape(panels, PANEL, blocks, units, size).transpose(0, 2, 3, 1, 4)
    return torch.from_numpy(units_PBURW)
