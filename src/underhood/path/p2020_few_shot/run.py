"""Brown et al. 2020, Garg et al. 2022: small GPTs that learn a task from examples in their context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.context_tasks import (
    EXAMPLES,
    ITEMS,
    LABELS,
    NOISE,
    UNKNOWNS,
    Problems,
    best_accuracy,
    guess_hits,
    labelled_items,
    lines,
    ridge,
)
from underhood.path.lib.many_gpts import ManyGPTs, ManyGPTsSpec, train_many

SIZES = {"width 8": (8, 1), "width 16": (16, 1), "width 32": (32, 1), "two layers of width 32": (32, 2)}
BATCH, TESTS = 32, 1000
BOTH_KNOW = 5
"""Examples after which least squares has an answer with a finite mean error as well."""


def run(trial: Trial) -> None:
    if trial.wants("examples", "grows", "posterior"):
        label_items(trial)
    if trial.wants("ridge", "prior") and trial.scale == "report":
        fit_lines(trial)


def label_items(trial: Trial) -> None:
    """Accuracy by the number of examples, for models of three sizes."""
    linked, curves = not trial.ablated("mapping"), dict[str, np.ndarray]()
    names = list(SIZES) if trial.scale == "report" else ["width 8", "width 32"]
    if trial.is_ablation:
        names = ["width 32"]
    for name in trial.each(names, "size"):
        width, layers = SIZES[name]
        spec = ManyGPTsSpec(
            outputs=LABELS, inputs=ITEMS + LABELS, context=2 * EXAMPLES + 2, width=width, layers=layers, heads=2
        )
        models = ManyGPTs(spec, trial.seeds)

        steps = trial.by_scale(smoke=200, report=400)
        meta_train(
            trial,
            models,
            lambda count, number, draw: labelled_items(count, number, draw, linked=linked),
            label_loss,
            steps,
        )
        texts, labels = labelled_items(1, TESTS, torch.Generator().manual_seed(10**9), linked=linked)
        scores = answers_of(models, texts)
        curves[name] = (scores.argmax(dim=-1) == labels).float().mean(dim=1).numpy()
    largest = curves[names[-1]]
    gains = {name: curve[:, -1] - curve[:, 0] for name, curve in curves.items()}
    for number in range(len(trial.seeds)):
        trial.measure("examples", gains[names[-1]][number])
        if not trial.is_ablation:
            trial.measure("grows", gains[names[-1]][number] - gains[names[0]][number])
            trial.measure("posterior", largest[number, -1] / best_accuracy(EXAMPLES))
    if trial.is_ablation:
        return
    best = [best_accuracy(examples) for examples in range(EXAMPLES + 1)]
    simulated = np.mean([guess_hits(seed) for seed in range(4000)], axis=0)
    gap = float(np.abs(simulated - best).max())
    trial.oracle("The best guesser's closed form agrees with 4,000 simulated texts", gap < 0.03, f"{gap:.3f}")
    draw_curves(trial, curves, {"best possible": best}, "Labels learnt from the context", "share right")


def label_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of each model's answers, (S,)."""
    nats = F.cross_entropy(scores.flatten(0, 2), labels.flatten(), reduction="none")
    return nats.view(len(labels), -1).mean(dim=1)


def fit_lines(trial: Trial) -> None:
    """Squared error by the number of examples, beside ridge regression and least squares."""
    spec = ManyGPTsSpec(outputs=1, inputs=UNKNOWNS + 2, context=2 * EXAMPLES + 2, width=32, layers=2, heads=2)
    models = ManyGPTs(spec, trial.seeds)
    meta_train(trial, models, lines, lambda p, y: (p[..., 0] - y).square().mean(dim=(1, 2)), 800)
    texts, truth = lines(1, 4 * TESTS, torch.Generator().manual_seed(10**9))
    ours = (answers_of(models, texts)[..., 0] - truth).square().mean(dim=1).numpy() / UNKNOWNS

    def error(examples: int, penalty: float) -> float:
        miss = ridge(texts[0], examples, penalty) - truth[0, :, examples].double()
        return float(miss.square().mean()) / UNKNOWNS

    counts = range(EXAMPLES + 1)
    bayes = [error(examples, NOISE**2) for examples in counts]
    squares = [error(examples, 0.0) for examples in counts]
    for curve in ours:
        trial.measure("ridge", curve[EXAMPLES] / bayes[EXAMPLES])
        trial.measure("prior", curve[BOTH_KNOW] / squares[BOTH_KNOW])
    x, y = texts[0, 0, 1:-1:2, :UNKNOWNS].double(), texts[0, 0, 1:-1:2, UNKNOWNS].double()
    rows = torch.cat([x, NOISE * torch.eye(UNKNOWNS, dtype=torch.float64)])  # ridge is least squares with these rows
    solved = torch.linalg.lstsq(rows, torch.cat([y, torch.zeros(UNKNOWNS, dtype=torch.float64)])[:, None]).solution
    gap = abs(float((texts[0, 0, -2, :UNKNOWNS].double() @ solved)[0] - ridge(texts[0], EXAMPLES, NOISE**2)[0]))
    trial.oracle("Ridge regression equals least squares with a row for each weight", gap < 1e-9, f"{gap:.0e}")
    shown = {"ridge regression": bayes, "least squares": [min(value, 1.5) for value in squares]}
    draw_curves(trial, {"GPT of width 32": ours}, shown, "A linear function learnt from the context", "squared error")


def meta_train(
    trial: Trial,
    models: ManyGPTs,
    problems: Callable[[int, int, torch.Generator], Problems],
    loss: Callable[[Tensor, Tensor], Tensor],
    steps: int,
) -> None:
    """Training on new problems at every step; every model gets its own."""

    def of_step(step: int) -> Tensor:
        texts, answers = problems(models.count, BATCH, torch.Generator().manual_seed(step))
        return loss(models(texts)[:, :, 0::2], answers)

    train_many(models, of_step, steps=steps, lr=0.02, tell=trial.progress)


@torch.no_grad()
def answers_of(models: ManyGPTs, texts: Tensor) -> Tensor:
    """What every model answers to the questions of the same texts, (S, B, questions, outputs)."""
    return models(texts.expand(models.count, -1, -1, -1))[:, :, 0::2]


def draw_curves(
    trial: Trial, curves: dict[str, np.ndarray], others: Mapping[str, Sequence[float]], title: str, y: str
) -> None:
    counts = tuple(range(EXAMPLES + 1))
    series = [Series(name, counts, c.mean(axis=0), c.min(axis=0), c.max(axis=0)) for name, c in curves.items()]
    series += [Series(name, counts, tuple(values)) for name, values in others.items()]
    trial.plot(title=title, x="examples in the context", y=y, series=series)
