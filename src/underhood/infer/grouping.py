"""Which texts' keys can be attended to in one call, where each wants only its last token's answer.

A call costs more than its arithmetic while texts are short, so few calls are worth some thought. Two cases:

- Texts that share a piece of memory (a common beginning): their queries go through it together, as if they were
  one text's (Juravsky et al. 2024, Hydragen). The piece is then read from memory once.
- Texts whose own pieces lie at even distances: strides make one tensor of them, without a copy. Any two do, and texts
  of one kind that came together mostly all do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

ALIKE = 64
"""Pieces go together whose lengths differ by less than so many tokens; what the shorter ones lack is masked."""


class Piece(NamedTuple):
    """Some of a text's keys: `length` neighbouring slots from `slot` on, wanted by row `row` of the pass."""

    row: int
    slot: int
    length: int


class Group(NamedTuple):
    """Pieces for one call.

    Attributes:
        pieces: all the same one, or each `stride` slots after the one before it.
        stride: 0 for a shared piece or a single one.
    """

    pieces: tuple[Piece, ...]
    stride: int

    @property
    def length(self) -> int:
        return max(piece.length for piece in self.pieces)


def group(pieces: Sequence[Piece], slots: int) -> list[Group]:
    """Divides pieces into groups, each of which lies within a memory of `slots` slots."""
    same: dict[tuple[int, int], list[Piece]] = defaultdict(list)
    for piece in pieces:
        same[piece.slot, piece.length].append(piece)
    groups = [Group(tuple(shared), 0) for shared in same.values() if len(shared) > 1]
    alike: dict[int, list[Piece]] = defaultdict(list)
    for shared in same.values():
        if len(shared) == 1:
            alike[shared[0].length // ALIKE].append(shared[0])
    for some in alike.values():
        groups += _progressions(sorted(some, key=lambda piece: piece.slot), slots)
    return groups


def _progressions(pieces: list[Piece], slots: int) -> list[Group]:
    """Runs of pieces at even distances, in order of their slots."""
    found: list[Group] = []
    index = 0
    while index < len(pieces):
        end, stride = index + 1, 0
        if end < len(pieces):
            stride = pieces[end].slot - pieces[index].slot  # 0 where two begin alike but one goes further: each alone
            while stride and end < len(pieces) and pieces[end].slot - pieces[end - 1].slot == stride:
                end += 1
        while end > index + 1 and pieces[end - 1].slot + max(piece.length for piece in pieces[index:end]) > slots:
            end -= 1  # the shorter ones are read further than they go, which may be past the end
        found.append(Group(tuple(pieces[index:end]), stride if end > index + 1 else 0))
        index = end
    return found
