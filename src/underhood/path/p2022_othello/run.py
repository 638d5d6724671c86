"""Li et al. 2022: a model of Othello moves holds the board, which nobody has shown it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import Tensor

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.data.othello import Games, perft, random_games
from underhood.evals.board_probe import disc_error, fit_probe, read_board
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.path.lib.in_memory import with_random_layers
from underhood.path.lib.othello_boards import (
    edits,
    exchanged,
    inputs,
    legal_next,
    legal_share,
    missed,
    states,
    streams,
)
from underhood.path.lib.short_training import train_by_step

PERFT = [4, 12, 56, 244, 1396, 8200]
GROUPS = 8
"""Groups of games that are judged apart; intervals are over them, for one model."""
PUSHES = (1.0, 2.0, 4.0, 8.0)
"""How far discs are pushed, 1 is to the border between both sides; what works best on other boards is used."""


def run(trial: Trial) -> None:
    counts = [perft(depth) for depth in range(1, 7)]
    trial.oracle("move sequences from the start of the real board", counts == PERFT, str(counts))
    size = trial.by_scale(smoke=4, report=6)
    for seed in trial.each_seed():
        rng = np.random.default_rng(10**6 + seed)
        probing, judged = (
            random_games(games, rng, size) for games in trial.by_scale(smoke=(400, 400), report=(1500, 800))
        )
        model = train(trial, size, seed)
        groups = [judged.at(slice(start, None, GROUPS)) for start in range(GROUPS)]
        for group in groups:
            trial.measure("legal", legal_share(model, group))
        if trial.wants("board", "untrained", "control", "flipped", "random_push"):
            look_inside(trial, model, probing, judged, groups, rng, seed)


def new_model(size: int, seed: int) -> Decoder:
    """A fresh model: a token for each cell, and one for the start."""
    d_model, layers = {4: (64, 2), 6: (96, 3)}[size]
    spec = qwen3_shaped(
        vocab_size=size * size + 1, context_length=size * size - 4, d_model=d_model, layers=layers, heads=d_model // 32
    )
    return spec.initialize(seed=seed)


def train(trial: Trial, size: int, seed: int) -> Decoder:
    """A small GPT that reads random games once and predicts the next move, which is equally often each legal one."""
    if trial.ablated("training"):
        return with_random_layers(new_model(size, seed), seed).eval()
    model = new_model(size, seed)
    steps, batch = trial.by_scale(smoke=(150, 128), report=(700, 64))
    games = batches(size, steps, batch, seed)

    def loss(_step: int) -> Tensor:
        tokens_BT, legal_BTC = next(games)
        moves_BT1 = legal_BTC.sum(dim=-1, keepdim=True)
        log_probs_BTC = model(tokens_BT).log_softmax(dim=-1)[..., :-1]
        return -(log_probs_BTC * legal_BTC / moves_BT1.clamp(min=1)).sum() / (moves_BT1 > 0).sum()

    return train_by_step(model, loss, steps, fall=2, tell=lambda share: trial.progress(share, "training"))


def batches(size: int, steps: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random games as tokens, and the legal moves at each; fifty batches are played at once, which is faster."""
    rng = np.random.default_rng(seed)
    for start in range(0, steps, 50):
        games = random_games(min(50, steps - start) * batch, rng, size)
        yield from zip(inputs(games).split(batch), legal_next(games).float().split(batch), strict=True)


def look_inside(
    trial: Trial,
    model: Decoder,
    probing: Games,
    judged: Games,
    groups: list[Games],
    rng: np.random.Generator,
    seed: int,
) -> None:
    """Probes every layer of the model, and of an untrained one; then flips discs along the probes."""
    fresh = with_random_layers(new_model(judged.size, seed), seed).eval()
    probes, base = ([fit(x, probing, seed) for x in streams(each, probing)] for each in (model, fresh))
    errors, base_errors = errors_by_layer(model, probes, judged), errors_by_layer(fresh, base, judged)
    best, best_base = int(np.argmin(errors)), int(np.argmin(base_errors))
    control = fit_probe(streams(model, probing)[best], exchanged(probing, rng), epochs=4, seed=seed)
    tuning = edits(probing, rng)
    push = min(PUSHES, key=lambda push: missed(model, probes, tuning, push))
    for group in groups:
        x_MD = streams(model, group)[best]
        error = disc_error(read_board(probes[best], x_MD), states(group))
        trial.measure("board", error)
        trial.measure("untrained", errors_by_layer(fresh, base, group)[best_base] / error)
        trial.measure("control", disc_error(read_board(control, x_MD), exchanged(group, rng)) - error)
        chosen = edits(group, rng)
        before = missed(model, probes, chosen, 0.0)
        trial.measure("flipped", missed(model, probes, chosen, push) / before)
        trial.measure("random_push", missed(model, probes, chosen, push, random=True) / before)
    trial.note(f"Discs were pushed {push:g} times as far as to the border; the probe reads after layer {best + 1}.")
    show(trial, errors, base_errors, probes[best], streams(model, judged)[best], judged)


def fit(x_MD: Tensor, games: Games, seed: int) -> Tensor:
    return fit_probe(x_MD, states(games), epochs=6, seed=seed)


def errors_by_layer(model: Decoder, probes: list[Tensor], games: Games) -> list[float]:
    """The share of discs that each layer's probe reads wrongly."""
    pairs = zip(probes, streams(model, games), strict=True)
    return [disc_error(read_board(probe, x_MD), states(games)) for probe, x_MD in pairs]


def show(trial: Trial, errors: list[float], untrained: list[float], probe: Tensor, x_MD: Tensor, judged: Games) -> None:
    layers = tuple(range(1, len(errors) + 1))
    series = [Series(name, layers, tuple(each)) for name, each in (("trained", errors), ("untrained", untrained))]
    title = "How many discs a linear probe reads wrongly"
    trial.plot(title=title, x="after layer", y="share of discs", series=series)
    right, discs = read_board(probe, x_MD) == states(judged), states(judged) > 0
    share = ((right & discs).sum(dim=0) / discs.sum(dim=0)).reshape(judged.size, judged.size)
    trial.figure(
        Heat(
            title="The share of discs read rightly, cell by cell",
            values=tuple(map(tuple, share.tolist())),
            rows=tuple(str(row + 1) for row in range(judged.size)),
            columns=tuple("abcdefgh"[: judged.size]),
        )
    )
