"""The blocked cache's memory, and attention over it: many texts of any lengths in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.infer.store import Store
from underhood.nn.attention import attend

MOST_PARTS = 4
"""Pieces of memory that are attended to one by one; more are gathered first."""

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu


@dataclass(frozen=True)
class Span:
    """A text's part in a pass: tokens `start` … `start` + `count` − 1 of it are read, those before have been.

    `runs` says where the keys of all of them lie: (first slot, slots) in order, the last of which may be longer.
    """

    start: int
    count: int
    runs: Sequence[tuple[int, int]]

    def slots(self, first: int, last: int) -> list[tuple[int, int]]:
        """Where tokens `first` … `last` − 1 lie, as (first slot, slots)."""
        found, begin = [], 0
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

    A text's keys are attended to where they lie. One that lies in several pieces has each attended to alone, and the
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
        self.device = torch.device(device)
        self._keys = [Store(groups, slots, width, dtype, self.device, quantized) for groups, width in heads]
        self._values = [Store(groups, slots, width, dtype, self.device, quantized) for groups, width in heads]
        self._spans: Sequence[Span] = ()
        self._slots_N = torch.empty(0, dtype=torch.long)
        self._jobs: dict[int | None, list[_Job]] = {}

    @property
    def bytes(self) -> int:
        """Memory held for keys and values."""
        return sum(store.bytes for store in (*self._keys, *self._values))

    def arrange(self, spans: Sequence[Span]) -> Tensor:
        """Says what the next pass reads; returns the positions (1, T) of its tokens."""
        slots: list[int] = []
        positions: list[int] = []
        for span in spans:
            end = span.start + span.count
            positions.extend(range(span.start, end))
            for slot, length in span.slots(span.start, end):
                slots.extend(range(slot, slot + length))
        self._spans, self._jobs = spans, {}
        self._slots_N = torch.tensor(slots, device=self.device)
        return torch.tensor([positions], device=self.device)

    def copy(self, pairs: Sequence[tuple[int, int]], size: int) -> None:
        """Copies blocks of `size` slots: (from, to) each."""
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
        keys.write(self._slots_N, k_BGTK)
        values.write(self._slots_N, v_BGTK)
        jobs = self._jobs.get(window)
        if jobs is None:
            jobs = self._jobs[window] = [_job(row, span, window) for row, span in _rows(self._spans)]
        by_parts = cap is None and q_BHTK.device.type == "cpu"
        answers = []
        for job in jobs:
            q_1HTK = q_BHTK[:, :, job.row : job.row + job.count]
            if by_parts and job.parts is not None:
                own = None
                if job.count > 1:
                    own = (k_BGTK[:, :, job.row : job.row + job.count], v_BGTK[:, :, job.row : job.row + job.count])
                y_1HTK = _by_parts(q_1HTK, job, keys, values, own, scale)
            else:
                mask = job.mask(q_BHTK.device)
                y_1HTK = attend(q_1HTK, keys.gather(job.all), values.gather(job.all), mask, scale=scale, cap=cap)
            answers.append(y_1HTK.transpose(1, 2))
        return (answers[0] if len(answers) == 1 else torch.cat(answers, dim=1)).transpose(1, 2)


class _Job:
    """One text's attention in a pass.

    Attributes:
        row, count: which queries.
        all: where the keys lie that any of them may see, the new ones included.
        parts: pieces that every query sees in full; beside them a chunk sees itself causally. None if that doesn't
            describe it, for the window cuts into the chunk.
    """

    def __init__(
        self,
        row: int,
        count: int,
        all: list[tuple[int, int]],
        parts: list[tuple[int, int]] | None,
        span: Span,
        window: int | None,
    ):
        self.row, self.count, self.all, self.parts = row, count, all, parts
        self._span, self._window = span, window
        self._mask: Tensor | None = None

    def mask(self, device: torch.device) -> Tensor | None:
        """Who sees whom of `all`: bool (1, 1, T, S)."""
        if self.count == 1:
            return None
        if self._mask is None:
            end = self._span.start + self.count
            query = torch.arange(self._span.start, end, device=device)[:, None]
            key = torch.arange(end - sum(length for _, length in self.all), end, device=device)
            visible = key <= query
            if self._window is not None:
                visible &= query - key < self._window
            self._mask = visible[None, None]
        return self._mask


def _rows(spans: Sequence[Span]) -> list[tuple[int, Span]]:
    found, row = [], 0
    for span in spans:
        found.append((row, span))
        row += span.count
    return found


def _job(row: int, span: Span, window: int | None) -> _Job:
    end = span.start + span.count
    first = 0 if window is None else max(0, span.start - window + 1)
    everything = span.slots(first, end)
    if span.count == 1:
        return _Job(row, 1, everything, everything, span, window)
    inside = window is None or end <= window
    return _Job(row, span.count, everything, span.slots(0, span.start) if inside else None, span, window)


def _by_parts(
    q_1HTK: Tensor,
    job: _Job,
    keys: Store,
    values: Store,
    own: tuple[Tensor, Tensor] | None,
    scale: float | None,
) -> Tensor:
    """Attention over each piece of memory, and over a chunk's own keys, weighed together."""
    parts = job.parts
    assert parts is not None
    if len(parts) > MOST_PARTS:
        pieces = [(keys.gather(parts), values.gather(parts), False)]
    else:
        pieces = [(keys.read(slot, length), values.read(slot, length), False) for slot, length in parts]
    if own is not None:
        pieces.append((*own, True))
    k, v, causal = pieces[0]
    y_1HTK, total_1HT = _flash(q_1HTK, k, v, 0.0, causal, scale=scale)
    for k, v, causal in pieces[1:]:
        more_1HTK, sum_1HT = _flash(q_1HTK, k, v, 0.0, causal, scale=scale)
        weight_1HT = torch.sigmoid(sum_1HT - total_1HT)
        y_1HTK = torch.lerp(y_1HTK, more_1HTK, weight_1HT[..., None].to(y_1HTK.dtype))
        total_1HT = torch.logaddexp(total_1HT, sum_1HT)
    return y_1HTK
