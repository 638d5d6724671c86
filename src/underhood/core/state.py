"""State that a layer keeps between forward passes: the contract between mixers and caches."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class StateSpec:
    """The state of one layer, as its mixer's spec declares it; a cache is a list of such states.

    State per token (`vectors`) can be cut back, shared between texts and kept in pages. Recurrent state (`recurrent`)
    summarises all tokens before, so it can only go on or start anew.

    Attributes:
        vectors: (heads, width) of each vector kept per token: keys and values, convolution taps, or nothing.
        window: how many of the last tokens the layer reads, the new one included; None means all.
        integers: the vectors are token ids or the like, stored exactly as int64; else in the model's own type.
        recurrent: shapes of the tensors kept per sequence.
        paged: a paged KV cache, which computes attention itself, knows how the layer reads the vectors.
    """

    vectors: tuple[tuple[int, int], ...] = ()
    window: int | None = None
    integers: bool = False
    recurrent: tuple[tuple[int, ...], ...] = ()
    paged: bool = True


NO_STATE = StateSpec(window=1)
"""Of a layer that treats each token alone."""


def widest_window(states: tuple[StateSpec, ...]) -> int | None:
    """How many of the last tokens a model reads at most, the new one included; None if a layer reads all."""
    windows = [state.window for state in states]
    return None if any(window is None for window in windows) else max([1, *(w for w in windows if w is not None)])
