"""Which pieces of memory go into one call: the same ones, and those at even distances."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from underhood.infer.grouping import ALIKE, Group, Piece, group


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 200)), max_size=12), st.integers(840, 1100))
def test_group_keeps_every_piece_once_and_within_memory(places: list[tuple[int, int]], slots: int) -> None:
    pieces = [Piece(row, 16 * slot, length) for row, (slot, length) in enumerate(places)]
    groups = group(pieces, slots)
    assert sorted(piece for some in groups for piece in some.pieces) == pieces
    for some in groups:
        first = some.pieces[0]
        if some.stride == 0:
            assert len({(piece.slot, piece.length) for piece in some.pieces}) == 1
            continue
        assert len(some.pieces) > 1
        assert [piece.slot for piece in some.pieces] == [first.slot + n * some.stride for n in range(len(some.pieces))]
        assert some.pieces[-1].slot + some.length <= slots
        assert some.length - min(piece.length for piece in some.pieces) < ALIKE


def test_group_of_texts_that_came_together_is_one_call() -> None:
    pieces = [Piece(row, 160 * row, 70 + row) for row in range(16)]
    assert group(pieces, 16 * 160) == [Group(tuple(pieces), 160)]


def test_group_of_a_shared_beginning_is_one_call_and_any_two_pieces_are() -> None:
    shared = [Piece(row, 320, 100) for row in range(5)]
    own = [Piece(row, slot, 30) for row, slot in enumerate((0, 16, 96, 112))]
    assert group(shared, 1000) == [Group(tuple(shared), 0)]
    assert [len(some.pieces) for some in group(own, 1000)] == [2, 2]
