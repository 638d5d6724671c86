"""Boards behind tokens: which state and which legal moves belong to which token, and what an edit changes."""

from __future__ import annotations

import numpy as np
import torch

from underhood.data.othello import cells, legal_moves, random_games
from underhood.models.decoder import qwen3_shaped
from underhood.path.lib.othello_boards import edits, exchanged, inputs, legal_next, legal_share, states, streams


def test_tokens_boards_and_legal_moves_are_of_the_same_move():
    games = random_games(20, np.random.default_rng(0), 6)
    tokens, legal = inputs(games), legal_next(games)
    assert (tokens[:, 0] == 36).all()
    assert legal[:, 0].sum(dim=1).tolist() == [4] * 20
    for game in range(20):
        for turn in range(int(games.played[game].sum())):
            assert legal[game, turn, games.moves[game, turn]]  # what is played next was legal
            if turn + 1 < tokens.shape[1]:
                assert tokens[game, turn + 1] == games.moves[game, turn]
    model = qwen3_shaped(vocab_size=37, context_length=32, d_model=16, layers=2, heads=1).initialize(seed=0)
    (first, _), after = streams(model, games), states(games)
    assert len(first) == len(after) == int(games.played[:, :-1].sum())


def test_a_model_that_knows_the_rules_is_always_legal_and_one_that_says_nothing_new_is_not():
    games = random_games(10, np.random.default_rng(1), 4)
    legal = legal_next(games)

    class Rules(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.cat([legal.float(), torch.zeros(*legal.shape[:2], 1)], dim=-1)

    class Start(torch.nn.Module):
        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.one_hot(torch.full(tokens.shape, 16), 17).float()

    assert legal_share(Rules(), games) == 1  # pyright: ignore[reportArgumentType]
    assert legal_share(Start(), games) == 0  # pyright: ignore[reportArgumentType]


def test_an_edit_flips_one_disc_and_gives_the_legal_moves_of_the_new_board():
    games = random_games(60, np.random.default_rng(2), 6)
    chosen = edits(games, np.random.default_rng(3))
    assert len(chosen.cell_B) > 20
    rows = {tuple(row): number for number, row in enumerate(inputs(games).tolist())}
    for tokens, position, cell, side, legal in zip(
        chosen.tokens_BT.tolist(),
        chosen.position_B.tolist(),
        chosen.cell_B.tolist(),
        chosen.from_B.tolist(),
        chosen.legal_BC,
        strict=True,
    ):
        game, turn = rows[tuple(tokens)], position - 1
        assert games.states[game, turn, cell] == side > 0
        flipped = np.array([1 << cell], dtype=np.uint64)
        expected = legal_moves(games.own[[game], turn] ^ flipped, games.other[[game], turn] ^ flipped, 6)
        assert (cells(expected, 6)[0] == legal.numpy()).all()
        assert not torch.equal(legal, legal_next(games)[game, position])


def test_exchanged_boards_are_those_of_other_games_after_as_many_moves():
    games = random_games(30, np.random.default_rng(4), 4)
    own, other = states(games), exchanged(games, np.random.default_rng(5))
    discs = (own > 0).sum(dim=1)
    assert torch.equal(discs, (other > 0).sum(dim=1))
    assert not torch.equal(own, other)
