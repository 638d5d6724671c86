"""What all layers of one forward pass share: where each token stands and whom it may see.

Masks and rotary tables depend on positions only, so they are worked out once per pass and remembered here, not once
per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.core.protocols import AttendingCache, Cache

T = TypeVar("T")


class ForwardContext:
    """One pass over T new tokens that may look back on S ≥ T (S counts the new ones).

    Attributes:
        positions_BT: positions of the new tokens (B, T); B is 1 when every row has the same.
        positions_BS: positions of all that can be attended to (B, S).
        plain: no padding and one document per row, so causal order is the whole mask.
        cache: where the layers put and find keys and values, or None.
        attending: the cache in its place, where that works out attention itself.
    """

    def __init__(self, tokens_BT: Tensor, positions_BT: Tensor | None, cache: Cache | AttendingCache | None):
        count = tokens_BT.shape[1]
        if cache is not None:
            self.plain = positions_BT is None and cache.plain
            self.positions_BT, self.positions_BS = cache.extend(count, positions_BT)
        else:
            self.plain = positions_BT is None
            self.positions_BT = (
                torch.arange(count, device=tokens_BT.device)[None] if positions_BT is None else positions_BT
            )
            self.positions_BS = self.positions_BT
        self.attending: AttendingCache | None = None
        self.cache: Cache | None = None
        if hasattr(cache, "attend"):  # once per pass: a protocol's isinstance is slow
            self.attending = cast(AttendingCache, cache)
        else:
            self.cache = cast(Cache | None, cache)
        self._memo: dict[Hashable, object] = {}

    @property
    def cached(self) -> bool:
        """Whether layers keep state for later passes."""
        return self.cache is not None or self.attending is not None

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()` the first time this pass asks for `key`, the same result afterwards."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]  # type: ignore[return-value]

    def causal_only(self, window: int | None) -> bool:
        """True when plain causal attention over T = S tokens says it all (the fast kernels' own case)."""
        span = self.positions_BS.shape[1]
        return self.plain and self.positions_BT.shape[1] == span and (window is None or span <= window)

    def mask(self, window: int | None) -> Tensor | None:
        """Who may see whom: bool (B, 1, T, S), or None when a single new token may see everything.

        A key is visible when it stands at or before the query in the same document, is no padding, and is fewer than
        `window` positions back. Every token sees itself, so that a padding row has a defined (and unused) softmax.
        """
        count, span = self.positions_BT.shape[1], self.positions_BS.shape[1]
        if self.plain and count == 1 and (window is None or span <= window):
            return None
        return self.once(("mask", window), lambda: _mask(self.positions_BT, self.positions_BS, window))

    def recent(self, layer: int, x_BTD: Tensor, count: int) -> Tensor:
        """Each token's vector after those of the `count` tokens before it in its document, the cache included.

        Returns:
            (B, T, count + 1, D), the oldest first; zeros where the document begins later.
        """
        if self.attending is not None:
            return self.attending.recent(layer, x_BTD, count)
        new = x_BTD.shape[1]
        if self.cache is not None:
            [x_B1SD] = self.cache.update(layer, x_BTD[:, None])
            x_BTD = x_B1SD[:, 0]
        kept = min(x_BTD.shape[1], new + count)
        missing = new + count - kept
        x_BSD = F.pad(x_BTD[:, x_BTD.shape[1] - kept :], (0, 0, missing, 0))
        x_BTCD = x_BSD.unfold(1, count + 1, 1).mT
        positions_BS = F.pad(self.positions_BS[:, self.positions_BS.shape[1] - kept :], (missing, 0), value=-1)
        inside_BTC = self.once(("recent", count), lambda: _same_document(positions_BS, count))
        return x_BTCD.masked_fill(~inside_BTC[..., None], 0)


def _same_document(positions_BS: Tensor, count: int) -> Tensor:
    """Which of the `count` tokens before each are of its document (B, T, count + 1), the oldest first."""
    positions_BTC = positions_BS.unfold(1, count + 1, 1)
    follows_BTC = (positions_BTC[..., 1:] == positions_BTC[..., :-1] + 1) & (positions_BTC[..., :-1] >= 0)
    inside_BTC = follows_BTC.flip(-1).cumprod(-1).flip(-1).bool()
    return F.pad(inside_BTC, (0, 1), value=True)


def _mask(positions_BT: Tensor, positions_BS: Tensor, window: int | None) -> Tensor:
    count, span = positions_BT.shape[1], positions_BS.shape[1]
    order_S = torch.arange(span, device=positions_BS.device)
    order_T = order_S[span - count :]
    starts_BS = torch.ones_like(positions_BS, dtype=torch.bool)
    starts_BS[:, 1:] = positions_BS[:, 1:] != positions_BS[:, :-1] + 1
    document_BS = starts_BS.cumsum(dim=1)
    document_BT = document_BS[:, span - count :]
    visible_BTS = (order_S <= order_T[:, None]) & (document_BT[:, :, None] == document_BS[:, None, :])
    visible_BTS &= (positions_BS >= 0)[:, None, :]
    if window is not None:
        visible_BTS &= positions_BT[:, :, None] - positions_BS[:, None, :] < window
    visible_BTS |= order_S == order_T[:, None]
    return visible_BTS[:, None]
