"""A fixed memory for keys or values, in the model's own type or in 8 bits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from underhood.kernels.paged_attention import Memory, memory


class KVStorage:
    """`slots` vectors of `width` numbers for each of `groups` heads; all of a head's slots lie side by side.

    Args:
        quantized: whole numbers from −127 to 127 with one scale per vector (the row-wise absmax of LLM.int8(), Dettmers
            et al. 2022): a good quarter of the memory, widened when read.
    """

    def __init__(self, groups: int, slots: int, width: int, dtype: torch.dtype, device: torch.device, quantized: bool):
        self.dtype = dtype
        kind = torch.int8 if quantized else dtype
        self._data = _zeros((1, groups, slots, width), kind, device)
        self._scale = _zeros((1, groups, slots, 1), torch.float32, device) if quantized else None

    @staticmethod
    def bytes_per_slot(groups: int, width: int, dtype: torch.dtype, quantized: bool) -> int:
        return groups * (width + 4 if quantized else width * dtype.itemsize)

    @property
    def bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in (self._data, self._scale) if tensor is not None)

    def write(self, slots_N: Int[Tensor, "N"], x_1GNK: Shaped[Tensor, "1 G N K"]) -> None:
        """Stores vector n at slot ``slots_N[n]``."""
        if self._scale is None:
            self._data.index_copy_(2, slots_N, x_1GNK.to(self.dtype))
            return
        scale = (x_1GNK.float().abs().amax(dim=-1, keepdim=True) / 127).clamp_(min=1e-12)
        self._data.index_copy_(2, slots_N, (x_1GNK.float() / scale).round_().to(torch.int8))
        self._scale.index_copy_(2, slots_N, scale)

    def read(self, slot: int, count: int) -> Shaped[Tensor, "1 G N K"]:
        """`count` vectors from `slot` on: a view, or widened."""
        data = self._data.narrow(2, slot, count)
        if self._scale is None:
            return data
        return (data * self._scale.narrow(2, slot, count)).to(self.dtype)

    def at(self, slots_N: Int[Tensor, "N"]) -> Shaped[Tensor, "1 G N K"]:
        """The vectors of the given slots."""
        data = self._data.index_select(2, slots_N)
        return data if self._scale is None else (data * self._scale.index_select(2, slots_N)).to(self.dtype)

    @cached_property
    def memory(self) -> Memory:
        """All of it, for loops that find their way in it themselves."""
        return memory(self._data[0], None if self._scale is None else self._scale[0, :, :, 0])

    def gather(self, runs: Sequence[tuple[int, int]]) -> Shaped[Tensor, "1 G N K"]:
        """All vectors of the runs (first slot, slots), in order."""
        if len(runs) == 1:
            return self.read(*runs[0])
        return torch.cat([self.read(slot, count) for slot, count in runs], dim=2)

    def copy(self, source: int, to: int, count: int) -> None:
        """Copies `count` vectors from slot `source` on to where slot `to` begins; the two don't overlap."""
        for tensor in (self._data, self._scale):
            if tensor is not None:
                tensor.narrow(2, to, count).copy_(tensor.narrow(2, source, count))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros, because masked entries are read all the same, and no mask hides a NaN.

    On a CPU NumPy gets them from the system as pages that take no memory until something is written there.
    """
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    return torch.from_numpy(np.zeros(math.prod(shape) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
