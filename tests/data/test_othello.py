"""Othello against the published counts of its game tree, and against a slow board that is written differently."""

from __future__ import annotations

import numpy as np
import pytest

from underhood.data.othello import bit, cells, legal_moves, perft, play, random_games, start

PERFT = (1, 4, 12, 56, 244, 1396, 8200, 55_092)
"""Move sequences of 0, 1, 2, … moves on the board of 8 × 8 (Aart Bik's table, and every engine's self-test)."""


@pytest.mark.parametrize("depth", range(len(PERFT)))
def test_perft_matches_the_published_counts(depth: int):
    assert perft(depth) == PERFT[depth]


def slow_flips(board: dict[tuple[int, int], int], row: int, column: int, me: int) -> list[tuple[int, int]]:
    flips: list[tuple[int, int]] = []
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            line, at = [], (row + down, column + right)
            while (down, right) != (0, 0) and board.get(at) == -me:
                line.append(at)
                at = (at[0] + down, at[1] + right)
            if line and board.get(at) == me:
                flips += line
    return flips


@pytest.mark.parametrize("size", [4, 6, 8])
def test_random_games_match_a_board_of_coordinates(size: int):
    games = random_games(12, np.random.default_rng(size), size)
    for game in range(len(games)):
        middle = size // 2
        board = {(middle - 1, middle): 1, (middle, middle - 1): 1, (middle - 1, middle - 1): -1, (middle, middle): -1}
        me = 1
        for turn in range(int(games.played[game].sum())):
            row, column = divmod(int(games.moves[game, turn]), size)
            flips = slow_flips(board, row, column, me)
            assert flips, "every move flips something"
            board |= dict.fromkeys([*flips, (row, column)], me)

            def moves(side: int, board=board) -> set[int]:
                empty = [(r, c) for r in range(size) for c in range(size) if (r, c) not in board]
                return {r * size + c for r, c in empty if slow_flips(board, r, c, side)}

            me = -me if moves(-me) or not moves(me) else me
            state = np.zeros(size * size, dtype=int)
            for (r, c), side in board.items():
                state[r * size + c] = 1 if side == me else 2
            assert (games.states[game, turn] == state).all()
            assert set(np.flatnonzero(cells(games.legal[game, turn], size))) == moves(me)


def test_a_move_that_is_not_legal_flips_nothing():
    own, other = start(8)
    assert int(legal_moves(own, other)[0]) == sum(1 << cell for cell in (19, 26, 37, 44))
    after = play(own, other, bit(np.array([0])))
    assert int(after[0][0]) == int(other[0])
