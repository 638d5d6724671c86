"""Boards behind the moves that a model reads: residual streams beside states of the game, discs flipped in both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from underhood.data.othello import Games, bit, cells, legal_moves, start
from underhood.evals.board_probe import flip_push, pushed
from underhood.models.decoder import Decoder
from underhood.path.lib.residual_streams import residual_streams


def inputs(games: Games) -> Tensor:
    """Moves as tokens after the token of the start, (G, T); what follows the end of a game means nothing."""
    moves_GT = torch.from_numpy(games.moves)
    first = torch.full((len(games), 1), games.size**2)
    return torch.cat([first, moves_GT[:, :-1].clamp(min=0)], dim=1)


def legal_next(games: Games) -> Tensor:
    """The legal moves after each token of `inputs`, (G, T, C); none once a game is over."""
    at_start = legal_moves(*start(games.size, len(games)), games.size)[:, None]
    return torch.from_numpy(cells(np.concatenate([at_start, games.legal[:, :-1]], axis=1), games.size))


@torch.no_grad()
def legal_share(model: Decoder, games: Games) -> float:
    """How often the likeliest move is legal, over all positions of games that are not over."""
    named_GT = model(inputs(games))[:, 1:].argmax(dim=-1).numpy()  # after move t: position t + 1
    legal_GT = games.legal[:, :-1]
    right_GT = (named_GT < games.size**2) & (legal_GT & bit(named_GT % games.size**2) != 0)
    return float(right_GT[legal_GT != 0].mean())


def streams(model: Decoder, games: Games) -> list[Tensor]:
    """The residual stream after each layer at every move that was made, (M, D)."""
    after_LGTD = residual_streams(model, inputs(games))[1:, :, 1:]
    return list(after_LGTD[:, torch.from_numpy(games.played[:, :-1])])


def states(games: Games) -> Tensor:
    """Every cell after every move that was made, (M, C)."""
    return torch.from_numpy(games.states[:, :-1][games.played[:, :-1]])


def exchanged(games: Games, rng: np.random.Generator) -> Tensor:
    """The states of `states`, each exchanged with that of another game after the same number of moves."""
    mixed = games.states[:, :-1].copy()
    for turn in range(mixed.shape[1]):
        going = np.flatnonzero(games.played[:, turn])
        mixed[going, turn] = mixed[rng.permutation(going), turn]
    return torch.from_numpy(mixed[games.played[:, :-1]])


@dataclass(frozen=True)
class Edits:
    """One disc to flip in each of B games, and the moves that are legal once it is flipped."""

    tokens_BT: Tensor
    position_B: Tensor
    cell_B: Tensor
    from_B: Tensor
    legal_BC: Tensor


def edits(games: Games, rng: np.random.Generator) -> Edits:
    """A random disc in the middle of each game, where flipping it changes the legal moves and leaves some."""
    turn_G = rng.integers(games.size, games.size**2 - 4 - games.size, len(games))
    at = np.arange(len(games)), turn_G
    own_G, other_G = games.own[at], games.other[at]
    chance_GC = np.where(games.states[at] > 0, rng.random((len(games), games.size**2)), -1.0)
    cell_G = chance_GC.argmax(axis=1)
    legal_G = legal_moves(own_G ^ bit(cell_G), other_G ^ bit(cell_G), games.size)
    keep = np.flatnonzero((legal_G != games.legal[at]) & (legal_G != 0) & (games.legal[at] != 0))
    return Edits(
        inputs(games)[keep],
        torch.from_numpy(turn_G[keep] + 1),
        torch.from_numpy(cell_G[keep]),
        torch.from_numpy(games.states[at][keep, cell_G[keep]]),
        torch.from_numpy(cells(legal_G[keep], games.size)),
    )


@torch.no_grad()
def missed(model: Decoder, probes: Sequence[Tensor], chosen: Edits, push: float, *, random: bool = False) -> float:
    """The share of the edited board's N legal moves that are not among the model's N likeliest."""

    def towards(layer: int, x_BD: Tensor) -> Tensor:
        shift_BD = push * flip_push(probes[layer], x_BD, chosen.cell_B, chosen.from_B)
        if random:
            other = torch.randn(shift_BD.shape, generator=torch.Generator().manual_seed(layer))
            shift_BD = other / other.norm(dim=1, keepdim=True) * shift_BD.norm(dim=1, keepdim=True)
        return shift_BD

    with pushed(model, range(len(model.blocks) - 1), chosen.position_B, towards):
        logits_BV = model(chosen.tokens_BT)[torch.arange(len(chosen.cell_B)), chosen.position_B, :-1]
    rank_BC = logits_BV.argsort(dim=1, descending=True).argsort(dim=1)
    count_B1 = chosen.legal_BC.sum(dim=1, keepdim=True)
    hit_B = (chosen.legal_BC & (rank_BC < count_B1)).sum(dim=1)
    return float((1 - hit_B / count_B1[:, 0]).mean())
