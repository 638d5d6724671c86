"""Forward context: what all layers of one pass share, such as positions, masks, the cache, an encoder's output.

Masks and rotary tables depend on positions only, so they are computed once per pass and kept here, not once per layer.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.core.protocols import AttendingCache, Cache
from underhood.nn.packed_attention import document_lengths

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class MaskRule:
    """Attention mask rule: the tokens of its document that a token attends to.

    Attributes:
        causal: itself and earlier ones, and all of a prefix (see `ForwardContext`); otherwise earlier and later ones.
        window: only those fewer than this many positions away; None means all.
    """

    causal: bool = True
    window: int | None = None


class Memoizing:
    """Computes shared values once."""

    def __init__(self):
        self._memo: dict[Hashable, object] = {}

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """`make()` the first time somebody asks for `key`, the same result afterwards."""
        if key not in self._memo:
            self._memo[key] = make()
        return self._memo[key]  # type: ignore[return-value]


class EncoderMemory(Memoizing):
    """An encoder's output, which cross-attention reads. Layers keep their keys and values of it here.

    A batch of texts may have several rows for each source, one after the other (beams): as many for all.

    Attributes:
        states_BSD: (B, S, D).
        mask: which of them are real, bool (B, 1, 1, S), or None for all.
    """

    def __init__(self, states_BSD: Tensor, positions_BS: Tensor | None = None):
        super().__init__()
        self.states_BSD = states_BSD
        self.mask = None if positions_BS is None else (positions_BS >= 0)[:, None, None]

    def select(self, rows: Sequence[int]) -> EncoderMemory:
        """The memory of these sources, in this order, with the keys and values that layers keep of them."""
        index = torch.tensor(rows, device=self.states_BSD.device)
        selected = EncoderMemory(self.states_BSD[index])
        selected.mask = None if self.mask is None else self.mask[index]
        kept = cast(dict[Hashable, tuple[Tensor, Tensor]], self._memo)
        selected._memo = {layer: (keys[index], values[index]) for layer, (keys, values) in kept.items()}
        return selected


class ForwardContext(Memoizing):
    """One pass over T new tokens that may look back on S ≥ T (S counts the new ones).

    Attributes:
        positions_BT: positions of the new tokens (B, T); B is 1 when every row has the same.
        positions_BS: positions of all that can be attended to (B, S).
        plain: no padding and one document per row, so causal order is the whole mask.
        cache: where the layers put and find keys and values, or None.
        attending: the cache in its place, where that works out attention itself.
        memory: what cross-attention reads, or None.
        prefix_B1: how many tokens at the beginning of each row's document all of its tokens attend to (a prefix
            language model, Raffel et al. 2020, section 3.2.1), or None.
    """

    def __init__(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None,
        cache: Cache | AttendingCache | None,
        *,
        memory: EncoderMemory | None = None,
        prefix_B1: Tensor | None = None,
    ):
        super().__init__()
        self.memory, self.prefix_B1 = memory, prefix_B1
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

    @property
    def cached(self) -> bool:
        """Whether layers keep state for later passes."""
        return self.cache is not None or self.attending is not None

    def causal_only(self, rule: MaskRule) -> bool:
        """True when plain causal attention over T = S tokens says it all (the fast kernels' own case)."""
        span = self.positions_BS.shape[1]
        whole = self.plain and self.prefix_B1 is None and self.positions_BT.shape[1] == span
        return whole and rule.causal and (rule.window is None or span <= rule.window)

    def documents(self, rule: MaskRule) -> tuple[int, ...] | None:
        """Lengths of the packed documents (see `nn.packed_attention`), if attending to each by itself says it all.

        None where a mask is needed (with a cache, a prefix, a window that ends inside a document) or does as well:
        without a backward pass, and on a GPU, which would rather have one large kernel.
        """
        masked = self.cached or self.prefix_B1 is not None or not rule.causal or torch.compiler.is_compiling()
        if self.plain or masked or not torch.is_grad_enabled() or self.positions_BT.device.type != "cpu":
            return None
        lengths = self.once("documents", lambda: document_lengths(self.positions_BT))
        return lengths if rule.window is None or max(lengths) <= rule.window else None

    def mask(self, rule: MaskRule) -> Tensor | None:
        """Which keys each query sees: bool (B, 1, T, S), or None when all see everything.

        A key is visible when it is in the query's document, is not padding, and the rule allows it. Every token sees
        itself, so that a padding row has a defined (and unused) softmax.
        """
        count, span = self.positions_BT.shape[1], self.positions_BS.shape[1]
        if self.plain and (count == 1 or not rule.causal) and (rule.window is None or span <= rule.window):
            return None
        return self.once(rule, lambda: _mask(self.positions_BT, self.positions_BS, rule, self.prefix_B1))

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

    def earlier(self, layer: int, x_BTD: Tensor, distance: int) -> Tensor:
        """For each token the vector of the token `distance` before it in its document, the cache included.

        Returns:
            (B, T, D); zeros where the document begins later.
        """
        if self.attending is not None:
            return self.attending.recent(layer, x_BTD, distance)[:, :, 0]
        new = x_BTD.shape[1]
        if self.cache is not None:
            [x_B1SD] = self.cache.update(layer, x_BTD[:, None])
            x_BTD = x_B1SD[:, 0]
        kept = min(x_BTD.shape[1], new + distance)
        missing = new + distance - kept
        older_BTD = F.pad(x_BTD[:, x_BTD.shape[1] - kept :], (0, 0, missing, 0))[:, :new]
        positions_BS = self.positions_BS[:, self.positions_BS.shape[1] - kept :]
        before_BT = F.pad(positions_BS, (missing, 0), value=-1)[:, :new]
        inside_BT = (before_BT >= 0) & (before_BT == self.positions_BT - distance)
        return older_BTD * inside_BT[..., None]


def _same_document(positions_BS: Tensor, count: int) -> Tensor:
    """Which of the `count` tokens before each are of its document (B, T, count + 1), the oldest first."""
    positions_BTC = positions_BS.unfold(1, count + 1, 1)
    follows_BTC = (positions_BTC[..., 1:] == positions_BTC[..., :-1] + 1) & (positions_BTC[..., :-1] >= 0)
    inside_BTC = follows_BTC.flip(-1).cumprod(-1).flip(-1).bool()
    return F.pad(inside_BTC, (0, 1), value=True)


def _mask(positions_BT: Tensor, positions_BS: Tensor, rule: MaskRule, prefix_B1: Tensor | None) -> Tensor:
    count, span = positions_BT.shape[1], positions_BS.shape[1]
    order_S = torch.arange(span, device=positions_BS.device)
    order_T = order_S[span - count :]
    starts_BS = torch.ones_like(positions_BS, dtype=torch.bool)
    starts_BS[:, 1:] = positions_BS[:, 1:] != positions_BS[:, :-1] + 1
    document_BS = starts_BS.cumsum(dim=1)
    document_BT = document_BS[:, span - count :]
    visible_BTS = document_BT[:, :, None] == document_BS[:, None, :]
    if rule.causal:
        allowed_BTS = (order_S <= order_T[:, None])[None]
        if prefix_B1 is not None:
            allowed_BTS = allowed_BTS | (positions_BS < prefix_B1)[:, None, :]
        visible_BTS = visible_BTS & allowed_BTS
    visible_BTS &= (positions_BS >= 0)[:, None, :]
    if rule.window is not None:
        visible_BTS &= (positions_BT[:, :, None] - positions_BS[:, None, :]).abs() < rule.window
    visible_BTS |= order_S == order_T[:, None]
    return visible_BTS[:, None]
