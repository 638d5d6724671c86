"""A tensor of a GGUF file: its quantised blocks as they are stored, and their values.

A quantised row is a sequence of blocks of 32 or 256 values. Rows never share a block, so a selection or permutation of
rows keeps every bit; `rows` is how projections that a file stores in one tensor are told apart.

Source: the GGUF format, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md; block layouts: ``ggml-common.h``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import gguf
import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray
from torch import Tensor

CHUNK_VALUES = 2**21
"""Values that are dequantised at once: what bounds the memory beside the result."""

FLOAT_TYPES = {
    GGMLQuantizationType.F32: torch.float32,
    GGMLQuantizationType.F16: torch.float16,
    GGMLQuantizationType.BF16: torch.bfloat16,
}
"""Types that are not quantised."""


@dataclass(frozen=True, eq=False)
class GGUFTensor:
    """One matrix or vector of a GGUF file.

    Attributes:
        name: in the file, e.g. ``blk.0.attn_q.weight``.
        type: how its values are stored, e.g. Q4_0.
        shape: (rows, ..., columns), as PyTorch writes it; GGUF lists the dimensions the other way round.
        blocks: the stored bytes, (rows, bytes of a row); all dimensions but the last are counted as rows. A view of
            the memory-mapped file, unless rows were permuted.
        shift: added to every value: files store Gemma's norms with the 1 that our module adds itself.
    """

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    blocks: NDArray[np.uint8]
    shift: float = 0.0

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def rows(self, order: slice | NDArray[np.integer]) -> GGUFTensor:
        """The tensor of some rows, or of all of them in another order; leading dimensions are joined."""
        blocks = self.blocks[order]
        return replace(self, shape=(len(blocks), self.shape[-1]), blocks=blocks)

    def reshaped(self, *shape: int) -> GGUFTensor:
        """The same values, in the same order, with another shape."""
        return replace(self, shape=shape)

    def column(self) -> GGUFTensor:
        """A vector as a matrix of one column, so that `rows` can select its values; floats only."""
        return replace(self, shape=(self.values, 1), blocks=self.blocks.reshape(self.values, -1))

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """The dequantised values piece by piece: where each piece belongs among all values, and the piece, float32."""
        if self.type in FLOAT_TYPES:
            flat, values_per_unit = self.blocks.reshape(-1), 1
            unit = self.blocks.size // self.values
        else:
            values_per_unit, unit = GGML_QUANT_SIZES[self.type]
            flat = self.blocks.reshape(-1)
        units_at_once = CHUNK_VALUES // values_per_unit
        for first in range(0, self.values // values_per_unit, units_at_once):
            piece = flat[first * unit : (first + units_at_once) * unit]
            values = self._dequantize(piece, unit)
            start = first * values_per_unit
            yield slice(start, start + len(values)), values + self.shift if self.shift else values

    def dequantize(self) -> Tensor:
        """All values, float32, of the tensor's shape."""
        result = torch.empty(self.values)
        for where, values in self.chunks():
            result[where] = values
        return result.view(self.shape)

    def _dequantize(self, piece: NDArray[np.uint8], unit: int) -> Tensor:
        if self.type in FLOAT_TYPES:
            copy = np.array(piece)  # the map is read-only, which PyTorch does not know
            return torch.from_numpy(copy).view(FLOAT_TYPES[self.type]).float()
        # gguf works on 16 rows at a time: as many blocks to a row as keep it out of the interpreter.
        count = len(piece) // unit
        per_row = max(1, count // 64)
        whole = count // per_row * per_row * unit
        pieces = [piece[:whole].reshape(-1, per_row * unit), piece[whole:].reshape(1, -1)]
        values = [gguf.dequantize(blocks, self.type).reshape(-1) for blocks in pieces if blocks.size]
        return torch.from_numpy(np.concatenate(values) if len(values) > 1 else values[0])
