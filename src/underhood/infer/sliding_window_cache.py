"""A cache that holds no more than the last tokens, for models that look no further back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Shaped
from torch import Tensor

from underhood.core.protocols import LanguageModel
from underhood.core.state import StateSpec, widest_window
from underhood.infer.cache import ContiguousCache, device_of, dtype_of, states_of

LEAST_CHUNK = 64
"""Tokens of a prompt that are read at once even where the window is narrower."""


def window_of(model: LanguageModel) -> int | None:
    """How many of the last tokens a model reads at most; None if a layer reads all, or is recurrent."""
    states = states_of(model)
    if states is None or any(state.recurrent for state in states):
        return None
    return widest_window(states)


class SlidingWindowCache:
    """Keys and values of as many tokens as a window shows; answers `core.protocols.Cache`.

    Memory is that of a window and a chunk, whatever the length of the text. Tokens are stored one after the other; at
    the end of the memory what can still be seen moves to its front, so that it is always contiguous. A text is read in
    chunks of at most `chunk` tokens.

    Args:
        states: what each layer keeps.
        batch: rows.
        window: tokens that a token sees, itself included, in the layer that looks back furthest.
        chunk: tokens that can be read at once; None means `window`.
    """

    def __init__(
        self,
        states: Sequence[StateSpec],
        *,
        batch: int,
        window: int,
        chunk: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.window, self.chunk = window, chunk or window
        self._stored = ContiguousCache(states, batch=batch, capacity=window + self.chunk, dtype=dtype, device=device)
        self._seen = 0

    @classmethod
    def for_model(cls, model: LanguageModel, batch: int) -> "SlidingWindowCache":
        """A cache of the model's shapes and its widest window, on its device and in its type.

        Raises:
            ValueError: a layer has no window.
        """
        window, states = window_of(model), states_of(model)
        if window is None or states is None:
            raise ValueError("every layer must have a window")
        kind = {"dtype": dtype_of(model), "device": device_of(model)}
        return cls(states, batch=batch, window=window, chunk=max(window, LEAST_CHUNK), **kind)

    @property
    def length(self) -> int:
        """How many tokens per row the next one can see."""
        return min(self._stored.length, self.window - 1)

    @property
    def plain(self) -> bool:
        return self._stored.plain

    @property
    def bytes(self) -> int:
        """Memory held for keys and values."""
        return self._stored.bytes

    def extend(self, count: int, positions_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `core.protocols.Cache`.

        Raises:
            ValueError: more than `chunk` tokens at once.
        """
        if count > self.chunk:
            raise ValueError(f"at most {self.chunk} tokens can be read at once, got {count}")
        self._seen = self.length + count
        if self._stored.length + count > self._stored.capacity:
            self._stored.forget(self._stored.length - self.length)
        positions_BT, positions_BS = self._stored.extend(count, positions_BT)
        return positions_BT, positions_BS[:, -self._seen :]

    def update(self, layer: int, *new: Shaped[Tensor, "B G T K"]) -> tuple[Tensor, ...]:
        """See `core.protocols.Cache`."""
        return tuple(part_BGSK[:, :, -self._seen :] for part_BGSK in self._stored.update(layer, *new))

    def select(self, rows: Sequence[int]) -> None:
        """See `ContiguousCache.select`."""
        self._stored.select(rows)
