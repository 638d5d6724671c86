"""Li et al. 2022: a model of Othello moves holds the board, which nobody has shown it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.data.othello import Games, perft, random_games
from underhood.evals.board_probe import disc_error, fit_probe, read_board
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.path.lib.othello_boards import edits, exchanged, inputs_and_targets, legal_share, missed, states, streams
from underhood.train.cross_entropy import cross_entropy
from underhood.train.optim import MuonAdamWSpec, scale_lr

PERFT = [4, 12, 56, 244, 1396, 8200]
PUSHES = (1.0, 2.0, 4.0, 8.0)
"""How far discs are pushed, 1 is to the border between both sides; what works best on some boards is used on others."""


def run(trial: Trial) -> None:
    counts = [perft(depth) for depth in range(1, 7)]
    trial.oracle("move sequences from the start of the real board", counts == PERFT, str(counts))
    size = trial.by_scale(smoke=4, report=6)
    curves: list[list[float]] = []
    untrained: list[list[float]] = []
    for seed in trial.each_seed():
        rng = np.random.default_rng(10**6 + seed)
        probing, judged = (
            random_games(count, rng, size) for count in trial.by_scale(smoke=(800, 400), report=(3000, 800))
        )
        model = train(trial, size, seed)
        trial.measure("legal", legal_share(model, judged))
        probes = [fit(trial, x, probing, seed) for x in streams(model, probing)]
        errors = [error(probe, x, judged) for probe, x in zip(probes, streams(model, judged), strict=True)]
        trial.measure("board", min(errors))
        curves.append(errors)
        if trial.wants("untrained", "control", "flipped", "random_push"):
            fresh = new_model(size, seed)
            base = [
                error(fit(trial, x, probing, seed), y, judged)
                for x, y in zip(streams(fresh, probing), streams(fresh, judged), strict=True)
            ]
            untrained.append(base)
            trial.measure("untrained", min(base) / min(errors))
            best = int(np.argmin(errors))
            trial.measure("control", control_error(trial, model, best, probing, judged, seed) - min(errors))
            intervene(trial, model, probes, probing, judged, rng)
            if seed == trial.seeds[-1]:
                show(trial, curves, untrained, probes[best], streams(model, judged)[best], judged)


def new_model(size: int, seed: int) -> Decoder:
    """A fresh model: a token for each cell, and one for the start."""
    d_model, layers = {4: (64, 2), 6: (96, 4)}[size]
    spec = qwen3_shaped(
        vocab_size=size * size + 1, context_length=size * size - 4, d_model=d_model, layers=layers, heads=4
    )
    model = spec.initialize(seed=seed)
    for name, parameter in model.named_parameters():  # layers that write nothing would leave nothing to probe
        if name.endswith((".output.weight", ".down.weight")):
            generator = torch.Generator().manual_seed(seed)
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3 / parameter.shape[1] ** 0.5
    return model


def train(trial: Trial, size: int, seed: int) -> Decoder:
    """A small GPT that reads random games and predicts the next move; every game is read once."""
    model = new_model(size, seed)
    if trial.ablated("training"):
        return model.eval()
    steps, batch = trial.by_scale(smoke=(500, 128), report=(900, 128))
    optimizer = MuonAdamWSpec(matrix_lr=0.02, lr=0.01).build(model)
    for step, (tokens_BT, targets_BT) in enumerate(batches(size, steps, batch, seed)):
        loss = cross_entropy(model(tokens_BT).flatten(0, 1), targets_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        scale_lr(optimizer, min(1.0, 2 * (1 - step / steps)))
        optimizer.step()
        trial.progress(step / steps, "training")
    return model.eval()


def batches(size: int, steps: int, batch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Random games as tokens and targets; a hundred batches are played at once, which is faster."""
    rng = np.random.default_rng(seed)
    for start in range(0, steps, 100):
        tokens_GT, targets_GT = inputs_and_targets(random_games(min(100, steps - start) * batch, rng, size))
        yield from zip(tokens_GT.split(batch), targets_GT.split(batch), strict=True)


def fit(trial: Trial, x_MD: Tensor, games: Games, seed: int) -> Tensor:
    return fit_probe(x_MD, states(games), epochs=trial.by_scale(smoke=10, report=6), seed=seed)


def error(probe: Tensor, x_MD: Tensor, games: Games) -> float:
    return disc_error(read_board(probe, x_MD), states(games))


def control_error(trial: Trial, model: Decoder, layer: int, probing: Games, judged: Games, seed: int) -> float:
    """The error of a probe for the board of another game after as many moves: what the move's number alone gives."""
    shuffled = [exchanged(games, np.random.default_rng(seed)) for games in (probing, judged)]
    probe = fit_probe(streams(model, probing)[layer], shuffled[0], epochs=3, seed=seed)
    return disc_error(read_board(probe, streams(model, judged)[layer]), shuffled[1])


def intervene(
    trial: Trial, model: Decoder, probes: list[Tensor], tuning: Games, judged: Games, rng: np.random.Generator
) -> None:
    """Flips one disc in the residual stream and asks for the moves of the board with that disc flipped."""
    size = {push: missed(model, probes, edits(tuning, rng), push) for push in PUSHES}
    best = min(size, key=lambda push: size[push])
    chosen = edits(judged, rng)
    before = missed(model, probes, chosen, 0.0)
    trial.measure("flipped", missed(model, probes, chosen, best) / before)
    trial.measure("random_push", missed(model, probes, chosen, best, random=True) / before)


def show(
    trial: Trial,
    curves: list[list[float]],
    untrained: list[list[float]],
    probe: Tensor,
    x_MD: Tensor,
    judged: Games,
) -> None:
    layers = tuple(range(1, len(curves[0]) + 1))
    series = []
    for name, errors in (("trained", np.array(curves)), ("untrained", np.array(untrained))):
        series.append(Series(name, layers, errors.mean(axis=0), errors.min(axis=0), errors.max(axis=0)))
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
