"""The cache: what a model's layers keep of the tokens they have read (keys and values, taps, recurrent state).

Without it, every new token would cost a pass over the whole text so far; with it, one pass over one token.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from itertools import chain

import torch
from jaxtyping import Int, Shaped
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.core.state import StateSpec
from underhood.kernels.paged_attention import BlockTable, Memory, memory


def states_of(model: LanguageModel) -> tuple[StateSpec, ...] | None:
    """What each layer of a model keeps; None for a model that does not say, and so cannot be cached."""
    return getattr(model, "state_specs", None)


def dtype_of(model: LanguageModel) -> torch.dtype:
    """The type of a model's weights; float32 for a model without any."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.float32 if first is None else first.dtype


def device_of(model: LanguageModel) -> torch.device:
    """The device of a model's weights; the CPU for a model without any."""
    first = next(model.parameters(), None) if isinstance(model, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


class ContiguousCache:
    """The state of every layer in preallocated memory; answers `core.protocols.Cache`.

    Rows are aligned in arrival order: a batch of prompts of unequal length is padded on the left (position −1),
    so that all rows take their next token in the same column. A prompt may arrive in chunks. Gradients do not flow
    through what is stored.

    Args:
        states: what each layer keeps.
        batch: rows.
        capacity: tokens per row there is room for.
    """

    def __init__(
        self,
        states: Sequence[StateSpec],
        *,
        batch: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        if batch < 1 or capacity < 1:
            raise ValueError(f"batch and capacity must be at least 1, got {batch} and {capacity}")
        self.batch, self.capacity = batch, capacity
        self._states, self._dtype = tuple(states), dtype
        self._vectors: list[list[Tensor]] = []  # of each layer: (B, heads, capacity, width)
        for state in states:
            kind = torch.int64 if state.integers else dtype
            shapes = [(batch, heads, capacity, width) for heads, width in state.vectors]
            self._vectors.append([torch.empty(shape, dtype=kind, device=device) for shape in shapes])
        self._device = torch.device(device)
        self._length = self._newest = 0  # tokens stored, and how many of them came with the last pass
        self._forgotten = 0  # tokens before the first one stored
        self._positions_BS: Tensor | None = None  # None while `plain`: then they count on from there
        self._memories: list[tuple[Memory, Memory]] | None = None
        self._recurrent = self._no_recurrent_state()

    @classmethod
    def for_model(cls, model: LanguageModel, batch: int, capacity: int) -> "ContiguousCache":
        """A cache of the model's shapes, on its device and in its type.

        Raises:
            UserError: the model does not say what its layers keep.
        """
        states = states_of(model)
        if states is None:
            raise UserError(
                f"{type(model).__name__} does not say what its layers keep", fix="generate with cache=False"
            )
        return cls(states, batch=batch, capacity=capacity, dtype=dtype_of(model), device=device_of(model))

    @property
    def length(self) -> int:
        return self._length

    @property
    def plain(self) -> bool:
        return self._positions_BS is None

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(tensor.numel() * tensor.element_size() for tensor in (*self._parts, *chain(*self._recurrent)))

    @property
    def rewindable(self) -> bool:
        """Whether it can be cut back to any length: no layer has a recurrent state."""
        return not any(state.recurrent for state in self._states)

    @property
    def _parts(self) -> list[Tensor]:
        return [tensor for parts in self._vectors for tensor in parts]

    def _no_recurrent_state(self) -> list[tuple[Tensor, ...]]:
        make = {"dtype": self._dtype, "device": self._device}
        return [tuple(torch.zeros(self.batch, *shape, **make) for shape in state.recurrent) for state in self._states]

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

    def update(self, layer: int, *new: Shaped[Tensor, "B G T K"]) -> tuple[Tensor, ...]:
        """See `core.protocols.Cache`; `extend` comes first. The returned tensors are views of the cache."""
        if new[0].shape[0] != self.batch:
            raise ValueError(f"the cache holds {self.batch} rows, got {new[0].shape[0]}")
        start, end = self._length - new[0].shape[2], self._length
        for store, new_BGTK in zip(self._vectors[layer], new, strict=True):
            store.narrow(2, start, end - start).copy_(new_BGTK.detach())
        return tuple(store.narrow(2, 0, end) for store in self._vectors[layer])

    def recurrent(self, layer: int) -> tuple[Tensor, ...]:
        """See `core.protocols.Cache`."""
        return self._recurrent[layer]

    def set_recurrent(self, layer: int, *state: Tensor) -> None:
        """See `core.protocols.Cache`."""
        self._recurrent[layer] = tuple(tensor.detach() for tensor in state)

    def places(self, window: int | None) -> BlockTable:
        """See `cpu_decoder.PagedCacheLike`; of a cache with a single row."""
        ends = range(self._length - self._newest + 1, self._length + 1)
        firsts = [0 if window is None else max(0, end - window) for end in ends]
        return BlockTable.of([[(first, end - first)] for first, end in zip(firsts, ends, strict=True)])

    def memory(self, layer: int) -> tuple[Memory, Memory]:
        """See `cpu_decoder.PagedCacheLike`."""
        if self._memories is None:
            self._memories = [(memory(keys[0]), memory(values[0])) for keys, values in self._vectors]
        return self._memories[layer]

    def truncate(self, length: int) -> None:
        """Forgets everything after the first `length` tokens of every row.

        Raises:
            ValueError: not so many are stored, or the cache is not `rewindable` and `length` is neither 0 nor all.
        """
        if not 0 <= length <= self._length:
            raise ValueError(f"cannot cut a cache of {self._length} tokens to {length}")
        if length == 0 and self._forgotten:
            raise ValueError("a cache that has forgotten its beginning cannot start anew")
        if not self.rewindable and length not in (0, self._length):
            raise ValueError("a recurrent state cannot go back")
        self._length = length
        if length == 0:
            self._positions_BS = None
            self._recurrent = self._no_recurrent_state()

    def forget(self, count: int) -> None:
        """Forgets the first `count` tokens of every row; what follows moves to the front."""
        if not 0 <= count <= self._length:
            raise ValueError(f"cannot forget {count} of {self._length} tokens")
        stored, self._length = self._length, self._length - count
        for tensor in self._parts:
            tensor[:, :, : self._length] = tensor[:, :, count:stored].clone()
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
            for tensor in self._parts:
                tensor[to, :, : self._length] = tensor[source, :, : self._length]
            if self._positions_BS is not None:
                self._positions_BS[to] = self._positions_BS[source]
            index = torch.tensor(rows, device=self._device)
            self._recurrent = [tuple(tensor[index] for tensor in parts) for parts in self._recurrent]
        self.batch = len(rows)
        self._memories = None
        self._vectors = [[tensor[: self.batch] for tensor in parts] for parts in self._vectors]
        self._recurrent = [tuple(tensor[: self.batch] for tensor in parts) for parts in self._recurrent]
        if self._positions_BS is not None:
            self._positions_BS = self._positions_BS[: self.batch]

    def spread(self, rows: Sequence[int]) -> "ContiguousCache":
        """A cache of the given rows, in that order, of any number; this one stays as it is."""
        index = torch.tensor(rows, device=self._device)
        wide = copy(self)
        wide.batch, wide._memories = len(rows), None
        wide._vectors = [[tensor[index] for tensor in parts] for parts in self._vectors]
        wide._recurrent = [tuple(tensor[index] for tensor in parts) for parts in self._recurrent]
        wide._positions_BS = None if self._positions_BS is None else self._positions_BS[index]
        return wide

    def reserve(self, capacity: int) -> None:
        """Makes room for `capacity` tokens per row; what is stored stays."""
        if capacity <= self.capacity:
            return

        def grown(tensor: Tensor) -> Tensor:
            larger = tensor.new_empty(*tensor.shape[:2], capacity, tensor.shape[3])
            larger[:, :, : self._length] = tensor[:, :, : self._length]
            return larger

        self._memories = None
        self._vectors = [[grown(tensor) for tensor in parts] for parts in self._vectors]
        if self._positions_BS is not None:
            larger = self._positions_BS.new_empty(self.batch, capacity)
            larger[:, : self._length] = self._positions_BS[:, : self._length]
            self._positions_BS = larger
        self.capacity = capacity
