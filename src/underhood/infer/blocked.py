"""The blocked cache's memory, and attention over it: many texts of any lengths in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.infer.grouping import Group, Piece, group
from underhood.infer.store import Store
from underhood.nn.attention import attend

MOST_PIECES = 4
"""Pieces of memory that a text's keys are attended to in, one by one; where they lie in more they are gathered."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class Span:
    """A text's part in a pass: its tokens `start` … `start` + `count` − 1 are read, those before have been.

    `runs` says where the keys of all of them lie: (first slot, slots) in order, the last of which may be longer. The
    first `dropped` tokens are behind every window and lie nowhere.
    """

    start: int
    count: int
    runs: Sequence[tuple[int, int]]
    dropped: int = 0

    @property
    def end(self) -> int:
        return self.start + self.count

    def slots(self, first: int, last: int) -> list[tuple[int, int]]:
        """Where tokens `first` … `last` − 1 lie, as (first slot, slots)."""
        found, begin = [], self.dropped
        for slot, length in self.runs:
            low, high = max(first, begin), min(last, begin + length)
            if low < high:
                found.append((slot + low - begin, high - low))
            begin += length
        return found


class BlockedCache:
    """Keys and values of many texts in one memory per layer; answers `core.protocols.AttendingCache`.

    Before a pass, `arrange` says which texts its row is made of. Which slots are whose is not decided here (see
    `blocks`, `scheduler`).

    Keys are attended to where they lie. Where a text's lie in several pieces, each is attended to alone, and the
    answers are weighed by their sums of exponentials, which gives what one softmax over all would (Dao et al. 2022,
    section 3.1).
    """

    plain = False

    def __init__(
        self,
        heads: Sequence[tuple[int, int]],
        slots: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        quantized: bool = False,
    ):
        self.device, self.slots = torch.device(device), slots
        self._keys = [Store(groups, slots, width, dtype, self.device, quantized) for groups, width in heads]
        self._values = [Store(groups, slots, width, dtype, self.device, quantized) for groups, width in heads]
        self._spans: Sequence[Span] = ()
        self._slots_N = torch.empty(0, dtype=torch.long)
        self._plans: dict[tuple[int | None, bool], _Plan] = {}

    @property
    def bytes(self) -> int:
        """Memory held for keys and values."""
        return sum(store.bytes for store in (*self._keys, *self._values))

    def arrange(self, spans: Sequence[Span]) -> Tensor:
        """Says what the next pass reads; returns the positions (1, T) of its tokens."""
        slots: list[int] = []
        positions: list[int] = []
        for span in spans:
            positions.extend(range(span.start, span.end))
            for slot, length in span.slots(span.start, span.end):
                slots.extend(range(slot, slot + length))
        self._spans, self._plans = spans, {}
        self._slots_N = torch.tensor(slots, device=self.device)
        return torch.tensor([positions], device=self.device)

    def copy(self, pairs: Sequence[tuple[int, int]], size: int) -> None:
        """Copies blocks of `size` slots: (from, to) each, in turn."""
        for store in (*self._keys, *self._values):
            for source, to in pairs:
                store.copy(source * size, to * size, size)

    def extend(self, count: int, positions_BT: Tensor | None) -> tuple[Tensor, Tensor]:
        """See `core.protocols.AttendingCache`."""
        assert positions_BT is not None, "they are what `arrange` returned"
        return positions_BT, positions_BT

    def attend(
        self,
        layer: int,
        q_BHTK: Float[Tensor, "1 H T K"],
        k_BGTK: Float[Tensor, "1 G T K"],
        v_BGTK: Float[Tensor, "1 G T K"],
        *,
        scale: float | None,
        window: int | None,
        cap: float | None,
    ) -> Float[Tensor, "1 H T K"]:
        """See `core.protocols.AttendingCache`."""
        keys, values = self._keys[layer], self._values[layer]
        q_BHTK, k_BGTK, v_BGTK = (_straight(x) for x in (q_BHTK, k_BGTK, v_BGTK))
        keys.write(self._slots_N, k_BGTK)
        values.write(self._slots_N, v_BGTK)
        exact = cap is not None or q_BHTK.device.type != "cpu"  # what the kernel that tells its sums cannot do
        plan = self._plans.get((window, exact))
        if plan is None:
            plan = self._plans[window, exact] = _Plan(self._spans, window, exact, self.slots, q_BHTK)
        q_THK = q_BHTK[0].transpose(0, 1)
        if plan.only is not None:
            return _attend_group(plan.only, q_THK, keys, values, scale)[0].transpose(0, 1)[None]
        y_THK = torch.empty_like(q_THK, memory_format=torch.contiguous_format)
        for level, calls in enumerate(plan.levels):
            for call in calls:
                y_NHK, sums_NH = _attend_group(call, q_THK, keys, values, scale)
                if level:
                    before_NH, before_NHK = plan.sums_TH[call.rows], y_THK[call.rows]
                    y_NHK = torch.lerp(before_NHK, y_NHK, _weight(sums_NH, before_NH, y_NHK))
                    sums_NH = torch.logaddexp(before_NH, sums_NH)
                y_THK[call.rows] = y_NHK
                if len(plan.levels) > 1:
                    plan.sums_TH[call.rows] = sums_NH
        for chunk in plan.chunks:
            rows = slice(chunk.row, chunk.row + chunk.span.count)
            own = (q_BHTK[:, :, rows], k_BGTK[:, :, rows], v_BGTK[:, :, rows])
            y_THK[rows] = _attend_chunk(chunk, own, keys, values, scale)[0].transpose(0, 1)
        for whole in plan.wholes:
            rows = slice(whole.row, whole.row + whole.span.count)
            k, v = keys.gather(whole.pieces), values.gather(whole.pieces)
            y_1HTK = attend(q_BHTK[:, :, rows], k, v, whole.mask, scale=scale, cap=cap)
            y_THK[rows] = y_1HTK[0].transpose(0, 1)
        return y_THK.transpose(0, 1)[None]


@dataclass(frozen=True)
class _Call:
    """A group of single tokens in one call: their rows, and which of the keys each may see (None for all)."""

    group: Group
    rows: Tensor | slice
    mask: Tensor | None


@dataclass(frozen=True)
class _Text:
    """A text attended to by itself: the pieces where its keys lie, and who sees whom of them (None for all)."""

    row: int
    span: Span
    pieces: list[tuple[int, int]]
    mask: Tensor | None = None


class _Plan:
    """How a pass is attended to under one window; made once per pass and window.

    Attributes:
        levels: single tokens: calls over the first piece of each text, over the second, …
        chunks: several tokens of a text: over the pieces before them in full, over themselves causally.
        wholes: texts that need a mask, or lie in too many pieces: over all their keys, gathered.
        only: the one call that is all there is to do, if it is.
        sums_TH: log-sums of exponentials so far, of single tokens in several pieces.
    """

    def __init__(self, spans: Sequence[Span], window: int | None, exact: bool, slots: int, q_BHTK: Tensor):
        pieces: list[list[Piece]] = []
        self.chunks: list[_Text] = []
        self.wholes: list[_Text] = []
        row = 0
        for span in spans:
            first = 0 if window is None else max(0, span.start - window + 1)
            seen = span.slots(first, span.end)
            if exact or len(seen) > MOST_PIECES or (span.count > 1 and _cuts(span, window)):
                mask = None if span.count == 1 else _mask(span, first, window, q_BHTK.device)
                self.wholes.append(_Text(row, span, seen, mask))
            elif span.count > 1:
                self.chunks.append(_Text(row, span, span.slots(0, span.start)))
            else:
                for level, (slot, length) in enumerate(seen):
                    if level == len(pieces):
                        pieces.append([])
                    pieces[level].append(Piece(row, slot, length))
            row += span.count
        self.levels = [[_call(some, q_BHTK) for some in group(level, slots)] for level in pieces]
        alone = [len(level) for level in self.levels] == [1] and not self.chunks and not self.wholes
        self.only = self.levels[0][0] if alone and isinstance(self.levels[0][0].rows, slice) else None
        self.sums_TH = torch.empty(row, q_BHTK.shape[1], dtype=torch.promote_types(q_BHTK.dtype, torch.float32))


def _straight(x: Tensor) -> Tensor:
    """With the numbers of each head side by side, as the kernel takes for granted."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _cuts(span: Span, window: int | None) -> bool:
    """Whether a window hides anything from any of the tokens."""
    return window is not None and span.end > window


def _mask(span: Span, first: int, window: int | None, device: torch.device) -> Tensor:
    """Who sees whom of a text's tokens from `first` on: bool (1, 1, T, S)."""
    query = torch.arange(span.start, span.end, device=device)[:, None]
    key = torch.arange(first, span.end, device=device)
    visible = key <= query
    if window is not None:
        visible &= query - key < window
    return visible[None, None]


def _call(some: Group, q_BHTK: Tensor) -> _Call:
    rows = [piece.row for piece in some.pieces]
    straight = rows == list(range(rows[0], rows[0] + len(rows)))
    mask = None
    lengths = torch.tensor([piece.length for piece in some.pieces])
    if some.stride and bool((lengths != some.length).any()):
        hidden = torch.arange(some.length) >= lengths[:, None]
        mask = torch.zeros(hidden.shape, dtype=q_BHTK.dtype).masked_fill_(hidden, -torch.inf)[:, None, None]
    return _Call(some, slice(rows[0], rows[0] + len(rows)) if straight else torch.tensor(rows), mask)


def _attend_group(call: _Call, q_THK: Tensor, keys: Store, values: Store, scale: float | None) -> tuple[Tensor, Tensor]:
    """What the rows of a call find (N, H, K), and the log-sums of their exponentials (N, H)."""
    pieces, stride = call.group.pieces, call.group.stride
    q_NHK = q_THK[call.rows]
    slot, length = pieces[0].slot, call.group.length
    if stride:
        k, v = (store.read_many(slot, stride, len(pieces), length) for store in (keys, values))
        y_NHTK, sums_NHT = _flash(q_NHK[:, :, None], k, v, attn_mask=call.mask, scale=scale)
        return y_NHTK[:, :, 0], sums_NHT[:, :, 0]
    k, v = keys.read(slot, length), values.read(slot, length)
    y_1HNK, sums_1HN = _flash(q_NHK.transpose(0, 1)[None], k, v, scale=scale)
    return y_1HNK[0].transpose(0, 1), sums_1HN[0].mT


def _attend_chunk(
    chunk: _Text, own: tuple[Tensor, Tensor, Tensor], keys: Store, values: Store, scale: float | None
) -> Tensor:
    """Several tokens of a text (1, H, T, K): what came before is seen by all, themselves causally."""
    q_1HTK, k_1GTK, v_1GTK = own
    y_1HTK, sums_1HT = _flash(q_1HTK, k_1GTK, v_1GTK, 0.0, True, scale=scale)
    for slot, length in chunk.pieces:
        more_1HTK, more_1HT = _flash(q_1HTK, keys.read(slot, length), values.read(slot, length), scale=scale)
        y_1HTK = torch.lerp(y_1HTK, more_1HTK, _weight(more_1HT, sums_1HT, y_1HTK))
        sums_1HT = torch.logaddexp(sums_1HT, more_1HT)
    return y_1HTK


def _weight(sums: Tensor, before: Tensor, like: Tensor) -> Tensor:
    """The share of an answer whose exponentials sum to exp(`sums`) beside one of exp(`before`)."""
    return torch.sigmoid(sums - before)[..., None].to(like.dtype)
