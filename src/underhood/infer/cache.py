"""The key-value cache: what attention has already worked out about the tokens it has read.

Without it, every new token would cost a pass over the whole text so far; with it, one pass over one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.kernels.paged_attention import BlockTable, Memory, memory
from underhood.models.decoder import Decoder
from underhood.nn.attention import AttentionSpec


def heads_of(model: Decoder) -> list[tuple[int, int]]:
    """(G, K) of each layer of a model: key-value heads and the width of one.

    Raises:
        UserError: a layer mixes tokens in another way than attention, and so has no keys and values.
    """
    heads = []
    for layer in range(model.spec.layers):
        mixer = model.spec.block(layer).mixer
        if not isinstance(mixer, AttentionSpec):
            raise UserError(
                f"layer {layer} has no keys and values to cache",
                expected="attention",
                got=type(mixer).__name__,
                fix="generate with cache=False",
            )
        heads.append((mixer.groups, mixer.width_of_head(model.spec.width)))
    return heads


class ContiguousCache:
    """Preallocated keys and values, one block of memory per layer; answers `core.protocols.Cache`.

    Rows stand side by side in arrival order: a batch of prompts of unequal length is padded on the left (position −1),
    so that all rows take their next token in the same column. A prompt may arrive in chunks. Gradients do not flow
    through what is stored.

    Args:
        heads: (G, K) of each layer: key-value heads and the width of one.
        batch: rows.
        capacity: tokens per row there is room for.
    """

    def __init__(
        self,
        heads: Sequence[tuple[int, int]],
        *,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if batch < 1 or capacity < 1:
            raise ValueError(f"batch and capacity must be at least 1, got {batch} and {capacity}")
        self.batch, self.capacity = batch, capacity
        make = {"dtype": dtype, "device": device}
        self._keys = [torch.empty(batch, groups, capacity, width, **make) for groups, width in heads]
        self._values = [torch.empty(batch, groups, capacity, width, **make) for groups, width in heads]
        self._device = torch.device(device)
        self._length = self._newest = 0  # tokens stored, and how many of them came with the last pass
        self._forgotten = 0  # tokens that stood before the first one stored
        self._positions_BS: Tensor | None = None  # None while `plain`: then they count on from there
        self._memories: list[tuple[Memory, Memory]] | None = None

    @classmethod
    def for_model(cls, model: Decoder, batch: int, capacity: int) -> "ContiguousCache":
        """A cache of the model's shapes, on its device and in its type.

        Raises:
            UserError: a layer mixes tokens in another way than attention, which this cache cannot hold.
        """
        weight = model.embed.weight
        return cls(heads_of(model), batch=batch, capacity=capacity, dtype=weight.dtype, device=weight.device)

    @property
    def length(self) -> int:
        return self._length

    @property
    def plain(self) -> bool:
        return self._positions_BS is None

    @property
    def bytes(self) -> int:
        """Memory held for keys and values."""
        return sum(part.numel() * part.element_size() for part in (*self._keys, *self._values))

    def extend(self, count: int, positions_BT: Int[Tensor, "#B T"] | None) -> tuple[Tensor, Tensor]:
        """See `core.protocols.Cache`.

        Raises:
            UserError: the tokens do not fit.
        """
        start, end, self._newest = self._length, self._length + count, count
        if end > self.capacity:
            raise UserError(
                f"the cache is full: {self._length} tokens are stored and {count} more came",
                expected=f"at most {self.capacity} tokens",
                got=str(end),
                fix="make the cache larger or the text shorter",
            )
        if positions_BT is None and self._positions_BS is None:
            self._length = end
            span = torch.arange(self._forgotten, self._forgotten + end, device=self._device)[None]
            return span[:, start:], span
        if self._positions_BS is None:
            first = torch.arange(self._forgotten, self._forgotten + self.capacity, device=self._device)
            self._positions_BS = first.repeat(self.batch, 1)
        if positions_BT is None:
            last = self._positions_BS[:, start - 1 : start] if start else torch.full((self.batch, 1), -1)
            positions_BT = last.to(self._device) + 1 + torch.arange(count, device=self._device)
        self._positions_BS[:, start:end] = positions_BT
        self._length = end
        return self._positions_BS[:, start:end], self._positions_BS[:, :end]

    def update(
        self, layer: int, k_BGTK: Float[Tensor, "B G T K"], v_BGTK: Float[Tensor, "B G T K"]
    ) -> tuple[Tensor, Tensor]:
        """See `core.protocols.Cache`; `extend` comes first. The returned tensors are views of the cache."""
        if k_BGTK.shape[0] != self.batch:
            raise ValueError(f"the cache holds {self.batch} rows, got keys of {k_BGTK.shape[0]}")
        start, end = self._length - k_BGTK.shape[2], self._length
        keys, values = self._keys[layer], self._values[layer]
        keys.narrow(2, start, end - start).copy_(k_BGTK.detach())
        values.narrow(2, start, end - start).copy_(v_BGTK.detach())
        return keys.narrow(2, 0, end), values.narrow(2, 0, end)

    def places(self, window: int | None) -> BlockTable:
        """See `cpu_decoder.PagedCache`; of a cache with a single row."""
        ends = range(self._length - self._newest + 1, self._length + 1)
        firsts = [0 if window is None else max(0, end - window) for end in ends]
        return BlockTable.of([[(first, end - first)] for first, end in zip(firsts, ends, strict=True)])

    def memory(self, layer: int) -> tuple[Memory, Memory]:
        """See `cpu_decoder.PagedCache`."""
        if self._memories is None:
            pairs = zip(self._keys, self._values, strict=True)
            self._memories = [(memory(keys[0]), memory(values[0])) for keys, values in pairs]
        return self._memories[layer]

    def truncate(self, length: int) -> None:
        """Forgets everything after the first `length` tokens of every row."""
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot cut a cache of {self._length} tokens to {length}")
        if length == 0 and self._forgotten:
            raise ValueError("a cache that has forgotten its beginning cannot start anew")
        self._length = length
        if length == 0:
            self._positions_BS = None

    def forget(self, count: int) -> None:
        """Forgets the first `count` tokens of every row; what follows moves to the front."""
        if not 0 <= count <= self._length:
            raise ValueError(f"cannot forget {count} of {self._length} tokens")
        stored, self._length = self._length, self._length - count
        for part in (*self._keys, *self._values):
            part[:, :, : self._length] = part[:, :, count:stored].clone()
        if self._positions_BS is not None:
            self._positions_BS[:, : self._length] = self._positions_BS[:, count:stored].clone()
        self._forgotten += count

    def select(self, rows: Sequence[int]) -> None:
        """Keeps the given rows, in that order; a row may be named twice. Rows that stay in place cost nothing."""
        moved = [(new, old) for new, old in enumerate(rows) if new != old]
        if len(rows) > self.batch or any(not 0 <= old < self.batch for old in rows):
            raise ValueError(f"cannot select rows {list(rows)} of {self.batch}")
        if moved:
            to, source = (torch.tensor(index, device=self._device) for index in zip(*moved, strict=True))
            for part in (*self._keys, *self._values):
                part[to, :, : self._length] = part[source, :, : self._length]
            if self._positions_BS is not None:
                self._positions_BS[to] = self._positions_BS[source]
        self.batch = len(rows)
        self._memories = None
        self._keys = [part[: self.batch] for part in self._keys]
        self._values = [part[: self.batch] for part in self._values]
        if self._positions_BS is not None:
            self._positions_BS = self._positions_BS[: self.batch]

    def spread(self, rows: Sequence[int]) -> "ContiguousCache":
        """A cache of the given rows, in that order, of any number; this one stays as it is."""
        index = torch.tensor(rows, device=self._device)
        wide = copy(self)
        wide.batch, wide._memories = len(rows), None
        wide._keys = [part[index] for part in self._keys]
        wide._values = [part[index] for part in self._values]
        wide._positions_BS = None if self._positions_BS is None else self._positions_BS[index]
        return wide

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` tokens per row; what is stored stays."""
        if capacity <= self.capacity:
            return

        def grown(part: Tensor) -> Tensor:
            larger = part.new_empty(*part.shape[:2], capacity, part.shape[3])
            larger[:, :, : self._length] = part[:, :, : self._length]
            return larger

        self._memories = None
        self._keys = [grown(part) for part in self._keys]
        self._values = [grown(part) for part in self._values]
        if self._positions_BS is not None:
            larger = self._positions_BS.new_empty(self.batch, capacity)
            larger[:, : self._length] = self._positions_BS[:, : self._length]
            self._positions_BS = larger
        self.capacity = capacity
