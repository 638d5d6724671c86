"""A cache that holds no more than the last tokens, for models that look no further back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.infer.cache import ContiguousCache, heads_of
from underhood.models.decoder import Decoder
from underhood.nn.attention import AttentionSpec


def window_of(model: Decoder) -> int | None:
    """The widest window of a model's layers; None if one of them sees everything or is no attention."""
    windows = []
    for layer in range(model.spec.layers):
        mixer = model.spec.block(layer).mixer
        if not isinstance(mixer, AttentionSpec) or mixer.window is None:
            return None
        windows.append(mixer.window)
    return max(windows)


class SlidingWindowCache:
    """Keys and values of as many tokens as a window shows; answers `core.protocols.Cache`.

    Memory is that of two windows, whatever the length of the text. Tokens are stored one after the other; at the end
    of the memory what can still be seen moves to its front, once per window, so that it always lies in one piece. A
    text is read in chunks of at most `window` tokens.

    Args:
        heads: (G, K) of each layer.
        batch: rows.
        window: tokens that a token sees, itself included, in the layer that looks back furthest.
    """

    def __init__(
        self,
        heads: Sequence[tuple[int, int]],
        *,
        batch: int,
        window: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.window = window
        self._stored = ContiguousCache(heads, batch=batch, capacity=2 * window, dtype=dtype, device=device)
        self._seen = 0

    @classmethod
    def for_model(cls, model: Decoder, batch: int) -> "SlidingWindowCache":
        """A cache of the model's shapes and its widest window, on its device and in its type.

        Raises:
            ValueError: a layer has no window.
        """
        window = window_of(model)
        if window is None:
            raise ValueError("every layer must be attention with a window")
        weight = model.embed.weight
        return cls(heads_of(model), batch=batch, window=window, dtype=weight.dtype, device=weight.device)

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
            ValueError: more tokens at once than the window is wide.
        """
        if count > self.window:
            raise ValueError(f"at most {self.window} tokens can be read at once, got {count}")
        self._seen = self.length + count
        if self._stored.length + count > self._stored.capacity:
            self._stored.forget(self._stored.length - self.length)
        positions_BT, positions_BS = self._stored.extend(count, positions_BT)
        return positions_BT, positions_BS[:, -self._seen :]

    def update(
        self, layer: int, k_BGTK: Float[Tensor, "B G T K"], v_BGTK: Float[Tensor, "B G T K"]
    ) -> tuple[Tensor, Tensor]:
        """See `core.protocols.Cache`."""
        k_BGSK, v_BGSK = self._stored.update(layer, k_BGTK, v_BGTK)
        return k_BGSK[:, :, -self._seen :], v_BGSK[:, :, -self._seen :]

    def select(self, rows: Sequence[int]) -> None:
        """See `ContiguousCache.select`."""
        self._stored.select(rows)
