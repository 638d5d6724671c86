"""Hsieh et al. 2023: students that explain as a second task, and how many examples they need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.path.lib.explained_students import WayOfTraining, train_students
from underhood.path.lib.hidden_values import MODULUS, explained_questions

COUNTS = (125, 250, 500, 1000, 2000, 4000)
COMPARED, BAR = 500, 0.8
"""Examples at which accuracies are compared, and the accuracy whose price in examples is measured."""
EQUAL_TOKENS = (3 + 4) / 3
"""A prefix and two entities are 3 tokens, with the first of two values 4: multi-task training reads both rows."""
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
DRAWS = 400

ALONE, MULTI, SHUFFLED = "label only", "multi-task", "multi-task, shuffled rationales"
LONGER, CHAIN = "label only, equal tokens", "rationale, then label"
NOISY_ALONE, NOISY = "label only, 10 % misread", "multi-task, 10 % misread"
WAYS = {
    ALONE: WayOfTraining(alpha=1.0),
    MULTI: WayOfTraining(),
    SHUFFLED: WayOfTraining(shuffled=True),
    LONGER: WayOfTraining(alpha=1.0, steps=EQUAL_TOKENS),
    CHAIN: WayOfTraining(alpha=None),
    NOISY_ALONE: WayOfTraining(alpha=1.0, misread=0.1),
    NOISY: WayOfTraining(misread=0.1),
}
RATIOS = {
    "half": (MULTI, ALONE),
    "equal_tokens": (MULTI, LONGER),
    "shuffled_half": (SHUFFLED, ALONE),
    "noisy": (NOISY, NOISY_ALONE),
}


def run(trial: Trial) -> None:
    counts = COUNTS if trial.scale == "report" else (COMPARED,)
    names = [*WAYS] if trial.scale == "report" else [ALONE, MULTI, SHUFFLED]
    right: dict[str, Bool[np.ndarray, "counts worlds questions"]] = {}
    for name in trial.each(names[:2] if trial.is_ablation else names, "way"):
        way = WAYS[SHUFFLED] if name == MULTI and trial.ablated("own") else WAYS[name]
        right[name] = students(trial, counts, way)
    accuracy = {name: table.mean(axis=2) for name, table in right.items()}
    few = counts.index(COMPARED)
    for number in range(len(trial.seeds)):
        at_few = {name: float(table[few, number]) for name, table in accuracy.items()}
        trial.measure("helps", at_few[MULTI] - at_few[ALONE])
        if trial.is_ablation:
            continue
        trial.measure("shuffled", at_few[SHUFFLED] - at_few[ALONE])
        if trial.scale == "report":
            trial.measure("chain", at_few[MULTI] - at_few[CHAIN])
            for key, (first, second) in RATIOS.items():
                needs = [examples_needed(accuracy[name][:, number]) for name in (first, second)]
                trial.measure(key, needs[0] / needs[1])
    if trial.scale == "report":
        show(trial, right)
        weights(trial)


def students(trial: Trial, counts: tuple[int, ...], way: WayOfTraining) -> Bool[np.ndarray, "counts worlds questions"]:
    worlds = [explained_questions(seed) for seed in trial.seeds]
    steps = trial.by_scale(smoke=250, report=400)
    return train_students(worlds, trial.seeds, counts, way, steps=steps, tell=trial.progress)


def examples_needed(accuracy: Float[np.ndarray, "counts"] | Sequence[float]) -> float:
    """Examples until the accuracy `BAR`, between two counts by their logarithms; the largest count if never."""
    for number, share in enumerate(accuracy):
        if share >= BAR:
            if number == 0:
                return COUNTS[0]
            before = accuracy[number - 1]
            return COUNTS[number - 1] * 2 ** float((BAR - before) / (share - before))
    return COUNTS[-1]


def resampled(
    right: Bool[np.ndarray, "counts worlds questions"], worlds: np.ndarray, draw: np.random.Generator
) -> Float[np.ndarray, "counts worlds"]:
    """The accuracies in a bootstrap sample: these worlds, and of each as many questions, drawn again."""
    questions = draw.integers(right.shape[2], size=(len(worlds), right.shape[2]))
    return right[:, worlds[:, None], questions].mean(axis=2)


def intervals(right: dict[str, Bool[np.ndarray, "counts worlds questions"]]) -> dict[str, np.ndarray]:
    """95 % bootstrap intervals over worlds and questions, (2, counts) for each way and (2,) for each ratio."""
    draw, drawn = np.random.default_rng(0), dict[str, list]()
    for _ in range(DRAWS):
        worlds = draw.integers(right[ALONE].shape[1], size=right[ALONE].shape[1])
        accuracy = {name: resampled(table, worlds, draw) for name, table in right.items()}
        for name, table in accuracy.items():
            drawn.setdefault(name, []).append(table.mean(axis=1))
        needs = {name: np.array([examples_needed(curve) for curve in table.T]) for name, table in accuracy.items()}
        for key, (first, second) in RATIOS.items():
            drawn.setdefault(key, []).append((needs[first] / needs[second]).mean())
    return {name: np.quantile(values, [0.025, 0.975], axis=0) for name, values in drawn.items()}


def show(trial: Trial, right: dict[str, Bool[np.ndarray, "counts worlds questions"]]) -> None:
    ranges = intervals(right)
    series = []
    for name, table in right.items():
        low, high = ranges[name]
        series.append(Series(name, COUNTS, table.mean(axis=(1, 2)), low, high))
    trial.plot(
        title="Answers about new pairs, with 95 % bootstrap intervals",
        x="examples",
        y="share right",
        log_x=True,
        series=series,
        levels=((1 / MODULUS, "a guess"), (BAR, "the accuracy that is paid for")),
    )
    rows = [(" / ".join(RATIOS[key]), *(f"{end:.2f}" for end in ranges[key])) for key in RATIOS]
    head = ("examples needed, ratio", "low", "high")
    trial.table(title="95 % bootstrap intervals over worlds and questions", head=head, rows=rows)


def weights(trial: Trial) -> None:
    """The accuracy by the label's weight."""
    tables = [
        students(trial, (COMPARED,), WayOfTraining(alpha=alpha))[0].mean(axis=1) for alpha in trial.each(ALPHAS, "α")
    ]
    middle = tables[ALPHAS.index(0.5)]
    for number in range(len(trial.seeds)):
        trial.measure("alpha", max(float(table[number]) for table in tables) - float(middle[number]))
    means, lows, highs = (tuple(map(float, f(tables, axis=1))) for f in (np.mean, np.min, np.max))
    trial.plot(
        title=f"The label's weight α, with {COMPARED} examples",
        x="α",
        y="share right",
        series=[Series("mean and range over seeds", ALPHAS, means, lows, highs)],
    )
