"""Small students of a teacher who explains: several ways of training, many sizes of training set, all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from underhood.align.step_by_step import step_by_step_loss
from underhood.path.lib.hidden_values import LABEL, RATIONALE, VOCABULARY, Explained, prefixed
from underhood.path.lib.many_gpts import ManyGPTs, ManyGPTsSpec, train_many

TESTS, BATCH = 2000, 64
STUDENT = ManyGPTsSpec(outputs=VOCABULARY, context=6, width=32, layers=1, heads=4)
EMBED_SCALE = 0.2
"""Of the usual start: larger random embeddings tell all entities apart, and the labels are then learnt by heart."""


@dataclass(frozen=True)
class WayOfTraining:
    """What a student learns from an example.

    Attributes:
        alpha: the label's weight; 1 leaves the rationale out, None writes it before the label, as one task.
        shuffled: the rationales are those of other examples.
        misread: share of the examples in which the teacher is wrong.
        steps: of the optimiser, relative to the others.
    """

    alpha: float | None = 0.5
    shuffled: bool = False
    misread: float = 0.0
    steps: float = 1.0


def train_students(
    worlds: Sequence[Explained],
    seeds: Sequence[int],
    counts: Sequence[int],
    way: WayOfTraining,
    *,
    steps: int,
    tell: Callable[[float], object],
) -> Bool[np.ndarray, "counts worlds questions"]:
    """Students of each world and number of examples; which of the world's last `TESTS` questions each answers rightly.

    Args:
        seeds: one for each world; a student of few examples has a beginning of those of a student of more.
    """
    lessons: list[Explained] = []
    for count in counts:
        for world, seed in zip(worlds, seeds, strict=True):
            draw = torch.Generator().manual_seed(seed + 10**6)
            lesson = world.at(slice(count)).misread(way.misread, draw)
            lessons.append(lesson.with_shuffled_rationales(draw) if way.shuffled else lesson)
    models = ManyGPTs(STUDENT, [seed for _ in counts for seed in seeds])
    with torch.no_grad():
        models.weights["embed"] *= EMBED_SCALE
        models.weights["positions"] *= EMBED_SCALE
    sizes_S1 = torch.tensor([len(lesson) for lesson in lessons])[:, None]
    longest = max(counts)
    stacked = [
        torch.stack([F.pad(table, (0, 0) * (table.ndim - 1) + (0, longest - len(table))) for table in tables])
        for tables in zip(*((each.pairs_N2, each.rationale_N2, each.label_N[:, None]) for each in lessons), strict=True)
    ]
    draw = torch.Generator().manual_seed(10**7 + seeds[0])
    model_S1 = torch.arange(len(lessons))[:, None]

    def loss(step: int) -> Float[Tensor, "S"]:
        at_SB = (torch.rand(len(lessons), BATCH, generator=draw) * sizes_S1).long()
        pairs, values, label = (table[model_S1, at_SB] for table in stacked)
        if way.alpha is None:
            return nats(models, prefixed(LABEL, pairs, values, label), answer=3)
        label_S = nats(models, prefixed(LABEL, pairs, label), answer=1)
        if way.alpha == 1:
            return label_S
        return step_by_step_loss(label_S, nats(models, prefixed(RATIONALE, pairs, values), answer=2), alpha=way.alpha)

    train_many(models, loss, steps=round(steps * way.steps), lr=0.01, tell=tell)
    tests = [world.at(slice(-TESTS, None)) for _ in counts for world in worlds]
    rows = prefixed(LABEL, torch.stack([test.pairs_N2 for test in tests]))
    with torch.no_grad():
        for _ in range(3 if way.alpha is None else 1):
            rows = torch.cat([rows, models(rows)[:, :, -1:].argmax(-1)], dim=2)
    right = rows[:, :, -1] == torch.stack([test.label_N for test in tests])
    return right.view(len(counts), len(worlds), TESTS).numpy()


def nats(models: ManyGPTs, rows: Int[Tensor, "S B T"], *, answer: int) -> Float[Tensor, "S"]:
    """Each model's mean cross-entropy of the last tokens of its rows, `answer` of them in each."""
    logits = models(rows[:, :, :-1])[:, :, -answer:]
    each = F.cross_entropy(logits.flatten(0, 2), rows[:, :, -answer:].flatten(), reduction="none")
    return each.view(len(rows), -1).mean(dim=1)
