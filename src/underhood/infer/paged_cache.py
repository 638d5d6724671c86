"""The blocked cache's memory, and attention over it: many texts of any lengths in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from underhood.core.state import StateSpec
from underhood.infer.kv_storage import KVStorage
from underhood.kernels.jit import runs_compiled
from underhood.kernels.paged_attention import BlockTable, Memory, paged_attention
from underhood.nn.attention import attend

MOST_PIECES = 4
"""Pieces of memory that several tokens attend to one by one; where a sequence has more, they are gathered."""

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

    def first(self, window: int | None) -> int:
        """The first token that any of the new ones sees."""
        return 0 if window is None else max(0, self.start - window + 1)

    def seen(self, window: int | None) -> list[tuple[int, int]]:
        """Where all lie that the new tokens see, themselves included."""
        return self.slots(self.first(window), self.end)

    def token(self, position: int) -> "Span":
        """One of the new tokens by itself."""
        return self if self.count == 1 else replace(self, start=position, count=1)

    def slots(self, first: int, last: int) -> list[tuple[int, int]]:
        """Where tokens `first` … `last` − 1 lie, as (first slot, slots)."""
        ranges, begin = [], self.dropped
        for slot, length in self.runs:
            low, high = max(first, begin), min(last, begin + length)
            if low < high:
                ranges.append((slot + low - begin, high - low))
            begin += length
        return ranges


class PagedCache:
    """The state of many texts, in one memory per layer; answers `core.protocols.AttendingCache`.

    Before a pass, `arrange` says which texts its row is made of. Which slots are whose is not decided here (see
    `blocks`, `scheduler`).

    Keys are attended to where they lie. A text's single new token takes a compiled kernel (`kernels.paged_attention`).
    Of several new ones, each piece of the text is attended to alone, and the answers are weighed by their sums of
    exponentials, which gives what one softmax over all would (Dao et al. 2022, section 3.1).
    """

    plain = False

    def __init__(
        self,
        states: Sequence[StateSpec],
        slots: int,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        quantized: bool = False,
    ):
        self.device, self.slots = torch.device(device), slots
        self._stores: list[list[KVStorage]] = []  # of each layer
        for state in states:
            kind, small = (torch.int64, False) if state.integers else (dtype, quantized)
            shapes = state.vectors
            self._stores.append([KVStorage(heads, slots, width, kind, self.device, small) for heads, width in shapes])
        self._spans: Sequence[Span] = ()
        self._slots_N = torch.empty(0, dtype=torch.long)
        self._plans: dict[tuple[int | None, bool], _Plan] = {}
        self._recent: dict[int, Tensor] = {}

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(store.bytes for store in chain(*self._stores))

    def arrange(self, spans: Sequence[Span]) -> Tensor:
        """Says what the next pass reads; returns the positions (1, T) of its tokens."""
        slots: list[int] = []
        positions: list[int] = []
        for span in spans:
            positions.extend(range(span.start, span.end))
            for slot, length in span.slots(span.start, span.end):
                slots.extend(range(slot, slot + length))
        self._spans, self._plans, self._recent = spans, {}, {}
        self._slots_N = torch.tensor(slots, device=self.device)
        return torch.tensor([positions], device=self.device)

    def copy(self, pairs: Sequence[tuple[int, int]], size: int) -> None:
        """Copies blocks of `size` slots: (from, to) each, in turn."""
        for store in chain(*self._stores):
            for source, to in pairs:
                store.copy(source * size, to * size, size)

    def places(self, window: int | None) -> BlockTable:
        """See `cpu_decoder.PagedCacheLike`."""
        tokens = (span.token(position) for span in self._spans for position in range(span.start, span.end))
        return BlockTable.of([token.seen(window) for token in tokens])

    def memory(self, layer: int) -> tuple[Memory, Memory]:
        """See `cpu_decoder.PagedCacheLike`."""
        keys, values = self._stores[layer]
        return keys.memory, values.memory

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
        softcap: float | None,
    ) -> Float[Tensor, "1 H T K"]:
        """See `core.protocols.AttendingCache`."""
        keys, values = self._stores[layer]
        q_BHTK, k_BGTK, v_BGTK = (_straight(x) for x in (q_BHTK, k_BGTK, v_BGTK))
        keys.write(self._slots_N, k_BGTK)
        values.write(self._slots_N, v_BGTK)
        exact = softcap is not None or q_BHTK.device.type != "cpu"  # what the kernel that tells its sums cannot do
        loops = runs_compiled(q_BHTK)
        plan = self._plans.get((window, exact))
        if plan is None:
            plan = self._plans[window, exact] = _Plan(self._spans, window, exact, loops, q_BHTK.device)
        y_THK = q_BHTK.new_empty(q_BHTK.shape[2], q_BHTK.shape[1], q_BHTK.shape[3])
        if plan.singles is not None:
            rows, places = plan.singles
            found_NHK = torch.empty(len(rows), *y_THK.shape[1:])
            q, k, v = (x_BHTK[0, :, rows].transpose(0, 1).numpy() for x_BHTK in (q_BHTK, k_BGTK, v_BGTK))
            paged_attention((q, k, v), *self.memory(layer), places, found_NHK.numpy(), scale=scale, softcap=softcap)
            y_THK[rows] = found_NHK
        for chunk in plan.chunks:
            rows = slice(chunk.row, chunk.row + chunk.span.count)
            own = (q_BHTK[:, :, rows], k_BGTK[:, :, rows], v_BGTK[:, :, rows])
            y_THK[rows] = _attend_chunk(chunk, own, keys, values, scale)[0].transpose(0, 1)
        for whole in plan.wholes:
            rows = slice(whole.row, whole.row + whole.span.count)
            k, v = keys.gather(whole.pieces), values.gather(whole.pieces)
            y_1HTK = attend(q_BHTK[:, :, rows], k, v, whole.mask, scale=scale, softcap=softcap)
            y_THK[rows] = y_1HTK[0].transpose(0, 1)
        return y_THK.transpose(0, 1)[None]

    def recent(self, layer: int, x_BTD: Shaped[Tensor, "1 T D"], count: int) -> Shaped[Tensor, "1 T C D"]:
        """See `core.protocols.AttendingCache`."""
        [store] = self._stores[layer]
        store.write(self._slots_N, x_BTD[None])
        slots_TC = self._recent.get(count)
        if slots_TC is None:
            slots_TC = self._recent[count] = _recent_slots(self._spans, count).to(self.device)
        x_TCD = store.at(slots_TC.clamp(min=0).flatten())[0, 0].unflatten(0, slots_TC.shape)
        return x_TCD.masked_fill((slots_TC < 0)[..., None], 0)[None]


def _recent_slots(spans: Sequence[Span], count: int) -> Int[Tensor, "T C"]:
    """Slots of each new token and the `count` before it, the oldest first; −1 before a text's beginning."""
    rows = []
    for span in spans:
        first = span.first(count + 1)
        slots = [slot + i for slot, length in span.slots(first, span.end) for i in range(length)]
        before = span.start - first
        rows.append(torch.tensor([-1] * (count - before) + slots).unfold(0, count + 1, 1))
    return torch.cat(rows)


@dataclass(frozen=True)
class _SequenceAttention:
    """A text attended to by itself: the pieces that hold its keys, and the mask over them (None for all)."""

    row: int
    span: Span
    pieces: list[tuple[int, int]]
    mask: Tensor | None = None


class _Plan:
    """How a pass is attended to under one window; made once per pass and window.

    Attributes:
        singles: texts with a single new token: its rows in the pass, and where the texts lie.
        chunks: several tokens of a text: over the pieces before them in full, over themselves causally.
        wholes: what neither does: over all of a text's keys, gathered, with a mask where it takes one.
    """

    def __init__(self, spans: Sequence[Span], window: int | None, exact: bool, loops: bool, device: torch.device):
        rows: list[int] = []
        seen_by_rows: list[list[tuple[int, int]]] = []
        self.chunks: list[_SequenceAttention] = []
        self.wholes: list[_SequenceAttention] = []
        row = 0
        for span in spans:
            seen = span.seen(window)
            if span.count == 1 and loops:
                rows.append(row)
                seen_by_rows.append(seen)
            elif exact or span.count == 1 or len(seen) > MOST_PIECES or _cuts(span, window):
                mask = None if span.count == 1 else _mask(span, window, device)
                self.wholes.append(_SequenceAttention(row, span, seen, mask))
            else:
                self.chunks.append(_SequenceAttention(row, span, span.slots(0, span.start)))
            row += span.count
        self.singles = (torch.tensor(rows), BlockTable.of(seen_by_rows)) if rows else None


def _straight(x: Tensor) -> Tensor:
    """With the numbers of each head side by side, as the kernel takes for granted."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _cuts(span: Span, window: int | None) -> bool:
    """Whether a window hides anything from any of the tokens."""
    return window is not None and span.end > window


def _mask(span: Span, window: int | None, device: torch.device) -> Tensor:
    """Attention mask of a sequence's new tokens over its visible keys: bool (1, 1, T, S)."""
    query = torch.arange(span.start, span.end, device=device)[:, None]
    key = torch.arange(span.first(window), span.end, device=device)
    visible = key <= query
    if window is not None:
        visible &= query - key < window
    return visible[None, None]


def _attend_chunk(
    chunk: _SequenceAttention,
    own: tuple[Tensor, Tensor, Tensor],
    keys: KVStorage,
    values: KVStorage,
    scale: float | None,
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
