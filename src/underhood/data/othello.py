"""Othello: boards as bits, legal moves, and games played at random; many boards at once.

A board is two numbers of 64 bits, the discs of the side to move (*own*) and of the other (*other*). Cell 0 is the top
left corner, cells go along the rows. All functions take arrays of boards. Boards of 4 × 4 and 6 × 6 follow the same
rules.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bits = NDArray[np.uint64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Games:
    """Random games of G boards, T moves each; where a game ended early, −1 and empty boards.

    Attributes:
        size: cells along a side.
        moves: the cell of each move, (G, T).
        own, other: the board after each move, for the side that moves next, (G, T).
        legal: the moves that it has then, (G, T); none once the game is over.
    """

    size: int
    moves: Ints
    own: Bits
    other: Bits
    legal: Bits

    def __len__(self) -> int:
        return len(self.moves)

    def at(self, which: slice) -> Games:
        """Some of the games."""
        return Games(self.size, self.moves[which], self.own[which], self.other[which], self.legal[which])

    @property
    def played(self) -> NDArray[np.bool_]:
        """Which moves were made, (G, T)."""
        return self.moves >= 0

    @property
    def states(self) -> Ints:
        """Every cell after every move, (G, T, cells): 0 empty, 1 own, 2 the other's."""
        return cells(self.own, self.size).astype(np.int64) + 2 * cells(self.other, self.size)


def cells(bits: Bits, size: int) -> NDArray[np.bool_]:
    """Bits as booleans, one more dimension of size² cells."""
    return (bits[..., None] >> np.arange(size * size, dtype=np.uint64) & np.uint64(1)).astype(bool)


def bit(cell: Ints) -> Bits:
    """The board with a single disc, on that cell."""
    return np.uint64(1) << np.asarray(cell, dtype=np.uint64)


def start(size: int = 8, count: int = 1) -> tuple[Bits, Bits]:
    """Own and other discs at the start, black to move."""
    middle = size // 2
    corner = np.array([(middle - 1) * size + middle, middle * size + middle - 1])
    own, other = bit(corner).sum(), bit(corner + np.array([-1, 1])).sum()
    return np.full(count, own, np.uint64), np.full(count, other, np.uint64)


def shifts(size: int) -> list[tuple[int, np.uint64]]:
    """The eight directions: by how many cells, and the cells that one can arrive at without leaving the board."""
    column = np.arange(size * size) % size
    every = np.ones(size * size, dtype=bool)
    arrive = {-1: column < size - 1, 0: every, 1: column > 0}
    return [
        (row * size + step, np.uint64(sum(1 << int(cell) for cell in np.flatnonzero(arrive[step]))))
        for row in (-1, 0, 1)
        for step in (-1, 0, 1)
        if row or step
    ]


def _shift(bits: Bits, by: int, arrive: np.uint64) -> Bits:
    moved = bits << np.uint64(by) if by > 0 else bits >> np.uint64(-by)
    return moved & arrive


def legal_moves(own: Bits, other: Bits, size: int = 8) -> Bits:
    """The empty cells from which a straight line of the other's discs ends at a disc of one's own."""
    board = np.uint64(2 ** (size * size) - 1)
    empty, moves = ~(own | other) & board, np.zeros_like(own)
    for by, arrive in shifts(size):
        line = _shift(own, by, arrive) & other
        for _ in range(size - 3):
            line |= _shift(line, by, arrive) & other
        moves |= _shift(line, by, arrive) & empty
    return moves


def play(own: Bits, other: Bits, move: Bits, size: int = 8) -> tuple[Bits, Bits]:
    """The board after a legal move, for the other side: its discs first."""
    flipped = np.zeros_like(own)
    for by, arrive in shifts(size):
        line = _shift(move, by, arrive) & other
        for _ in range(size - 3):
            line |= _shift(line, by, arrive) & other
        flipped |= np.where(_shift(line, by, arrive) & own, line, np.uint64(0))
    return other & ~flipped, own | move | flipped


def after_passes(own: Bits, other: Bits, size: int = 8) -> tuple[Bits, Bits, Bits]:
    """The board for the side that moves next, and its moves: a side without one passes; without any, it is over."""
    moves, replies = legal_moves(own, other, size), legal_moves(other, own, size)
    passes = (moves == 0) & (replies != 0)
    return np.where(passes, other, own), np.where(passes, own, other), np.where(passes, replies, moves)


def random_games(count: int, rng: np.random.Generator, size: int = 8) -> Games:
    """Games in which every legal move is equally likely."""
    turns = size * size - 4
    moves = np.full((count, turns), -1, dtype=np.int64)
    boards = np.zeros((3, count, turns), dtype=np.uint64)
    own, other = start(size, count)
    legal = legal_moves(own, other, size)
    for turn in range(turns):
        chance = np.where(cells(legal, size), rng.random((count, size * size)), -1.0)
        going = legal != 0
        chosen = chance.argmax(axis=1)
        next_own, next_other, next_legal = after_passes(*play(own, other, bit(chosen), size), size)
        own, other, legal = (
            np.where(going, new, old) for new, old in ((next_own, own), (next_other, other), (next_legal, legal))
        )
        moves[going, turn] = chosen[going]
        boards[:, :, turn] = np.where(going, np.stack([own, other, legal]), np.uint64(0))
    return Games(size, moves, *boards)


def perft(depth: int) -> int:
    """How many sequences of so many moves there are from the start of 8 × 8 cells; a pass counts as a move."""
    own, other = start()
    for _ in range(depth):
        legal = legal_moves(own, other)
        passing = (legal == 0) & (legal_moves(other, own) != 0)
        board, cell = np.nonzero(cells(legal, 8))
        next_own, next_other = play(own[board], other[board], bit(cell))
        own, other = np.concatenate([next_own, other[passing]]), np.concatenate([next_other, own[passing]])
    return len(own)
