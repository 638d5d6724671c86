"""Hochreiter & Schmidhuber 1997: gradients through time, gates that keep them, and what attention does without."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.recurrent_cells import Cell, StackedCells, linear_slope, longest_chain, share_of_gradient

KINDS, NOISE, HIDDEN = 8, 8, 24
ROWS, RATE, BACK = 32, 0.01, 50
SHOWN = {
    "tanh": ("tanh", 0.0),
    "LSTM, forget gates half open": ("lstm", 0.0),
    "LSTM, bias 1": ("lstm", 1.0),
    "LSTM, open": ("lstm", math.log(BACK)),
    "GRU, open": ("gru", math.log(BACK)),
}


def run(trial: Trial) -> None:
    curves: dict[str, list[Tensor]] = {}
    for seed in trial.each_seed():
        for name, (cell, keep) in SHOWN.items():
            cells = StackedCells.initialize(cell, 1, KINDS + NOISE, HIDDEN, KINDS, seed=seed, keep=keep)  # type: ignore[arg-type]
            cells.forgets_all = trial.ablated("memory")
            curves.setdefault(name, []).append(gradients_back(cells, seed))
        curves.setdefault("attention", []).append(attention_back(seed))
        trial.measure("vanishes", float(curves["tanh"][-1][BACK]))
        trial.measure("carried", float(curves["LSTM, open"][-1][BACK]))
        trial.measure("attention_path", float(curves["attention"][-1][BACK] / curves["attention"][-1][1]))
        trial.measure("slope", linear_slope(HIDDEN, BACK, 0.9, seed) / math.log(0.9))
        chains = [[longest_chain(make(length)) for length in (32, 64)] for make in (lstm_output, attention_output)]
        for key, (short, long) in zip(("chain", "attention_chain"), chains, strict=True):
            trial.measure(key, long / short)
    if not trial.is_ablation:
        same_as_torch(trial)
        steps = tuple(map(float, range(BACK + 1)))
        trial.plot(
            title="How much of an error gets back through time",
            x="steps back",
            y="gradient, as a share of that at the last step",
            log_y=True,
            series=[
                Series(name, steps, tuple(torch.stack(rows).mean(0).clamp(min=1e-20).tolist()))
                for name, rows in curves.items()
            ],
            note="Fresh networks of 24 units, mean over seeds and 32 texts.",
        )
    recall(trial)


def gradients_back(cells: StackedCells, seed: int) -> Tensor:
    """Norm of the last state's gradient with respect to the input of each step back, as a share of the last step's."""
    draw = torch.Generator().manual_seed(seed)
    drive = cells.drive(torch.randint(KINDS, (1, ROWS, BACK + 1), generator=draw)).double().requires_grad_()
    double = StackedCells(cells.cell, *(weight.double() for weight in cells.weights), forgets_all=cells.forgets_all)
    return share_of_gradient(double.last_state(drive), drive, draw)


def attended(x: Tensor, seed: int) -> Tensor:
    """A layer of attention with random weights: the last token's output."""
    draw = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, HIDDEN, HIDDEN, generator=draw) / HIDDEN**0.5
    x.requires_grad_()
    return (x[..., -1:, :] @ query @ (x @ key).mT / HIDDEN**0.5).softmax(-1) @ (x @ value)


def attention_back(seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    x = torch.randn(1, ROWS, BACK + 1, HIDDEN, generator=draw)
    return share_of_gradient(attended(x, seed), x, draw)


def lstm_output(length: int) -> Tensor:
    cells = StackedCells.initialize("lstm", 1, KINDS, HIDDEN, KINDS, seed=0)
    return cells.last_state(cells.drive(torch.zeros(1, 1, length, dtype=torch.long)).requires_grad_())


def attention_output(length: int) -> Tensor:
    return attended(torch.zeros(length, HIDDEN), seed=0)


def recall(trial: Trial) -> None:
    """Trains to name the first symbol of a text after so many others, all seeds at once."""
    judged_lag = trial.by_scale(smoke=20, report=40)
    lags = trial.by_scale(smoke=(judged_lag,), report=(10, 20, judged_lag, 80))
    steps, table = trial.by_scale(smoke=250, report=400), []
    kinds: tuple[Cell, ...] = trial.by_scale(smoke=("tanh", "lstm"), report=("tanh", "gru", "lstm"))
    wanted: list[Cell] = [kind for kind in kinds if trial.wants(kind)]
    for cell in trial.each(wanted, "cell"):
        right_LS = torch.stack([trained_recall(trial, cell, lag, steps) for lag in trial.each(lags, "lag")])
        for accuracy in right_LS[lags.index(judged_lag)].tolist():
            trial.measure(cell, accuracy)
        table.append(Series(cell.upper() if cell != "tanh" else cell, lags, tuple(right_LS.mean(1).tolist())))
    trial.plot(
        title="Naming the first symbol after many others",
        x="symbols in between",
        y="right answers",
        series=table,
        levels=((1 / KINDS, "chance"),),
        kind="line" if len(lags) > 1 else "points",
    )


def trained_recall(trial: Trial, cell: Cell, lag: int, steps: int) -> Tensor:
    """The share of right answers of each seed's network, (S,)."""
    seeds = len(trial.seeds)
    cells = StackedCells.initialize(cell, seeds, KINDS + NOISE, HIDDEN, KINDS, seed=lag, keep=math.log(lag))
    cells.forgets_all = trial.ablated("memory")
    optimizer = torch.optim.Adam([weight.requires_grad_() for weight in cells.weights], lr=RATE)
    draw = torch.Generator().manual_seed(lag + 1)
    for step in range(steps):
        tokens_SBT = texts(seeds, ROWS, lag, draw)
        loss = F.cross_entropy(cells.scores(tokens_SBT).flatten(0, 1), tokens_SBT[..., 0].flatten()) * seeds
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(cells.weights, 1.0)
        optimizer.step()
        trial.progress(step / steps, f"{cell}, {lag}")
    with torch.no_grad():
        tokens_SBT = texts(seeds, 400, lag, draw)
        return (cells.scores(tokens_SBT).argmax(-1) == tokens_SBT[..., 0]).double().mean(dim=1)


def texts(networks: int, rows: int, lag: int, draw: torch.Generator) -> Tensor:
    """A symbol of eight kinds, then symbols of eight others."""
    tokens_SBT = torch.randint(KINDS, KINDS + NOISE, (networks, rows, lag + 1), generator=draw)
    tokens_SBT[..., 0] = torch.randint(KINDS, (networks, rows), generator=draw)
    return tokens_SBT


def same_as_torch(trial: Trial) -> None:
    theirs: dict[Cell, Callable[..., nn.RNNBase]] = {"tanh": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
    for cell, make in theirs.items():
        cells, module = (
            StackedCells.initialize(cell, 1, KINDS, HIDDEN, KINDS, seed=0, keep=1.0),
            make(input_size=KINDS, hidden_size=HIDDEN),
        )
        values = (cells.input_SXG[0].T, cells.hidden_SHG[0].T, cells.bias_SG[0], torch.zeros_like(cells.bias_SG[0]))
        for parameter, value in zip(module.parameters(), values, strict=True):
            parameter.data.copy_(value)
        tokens_SBT = torch.randint(KINDS, (1, 1, 20))
        expected = module(F.one_hot(tokens_SBT[0, 0], KINDS).float())[0][-1]
        worst = float((cells.last_state(cells.drive(tokens_SBT))[0, 0] - expected).detach().abs().max())
        name = type(module).__name__
        trial.oracle(f"torch.nn.{name} with the same weights", worst < 1e-6, f"largest difference {worst:.0e}")
