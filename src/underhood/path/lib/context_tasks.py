"""Tasks that only the context can tell: labels in an order of the moment, and points of a line of the moment.

A text is a row of vectors in which questions (even positions) and examples (odd ones) take turns; an example is the
question's input with its answer. The best possible answers are known: `best_accuracy` and `ridge`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EXAMPLES = 8  # questions follow 0, 1, … 8 of them
LABELS, ITEMS = 4, 16
UNKNOWNS, NOISE = 3, 0.5

Problems = tuple[Float[Tensor, "S B T I"], Tensor]
"""Texts and the answers to their questions (S, B, questions)."""


def labelled_items(models: int, count: int, draw: torch.Generator, *, linked: bool = True) -> Problems:
    """Four of sixteen items with labels in random order, asked for again and again.

    Args:
        linked: False draws each example's label by itself.
    """
    shape = (models, count)
    chosen = torch.rand(*shape, ITEMS, generator=draw).argsort(dim=-1)[..., :LABELS]
    label_of = torch.rand(*shape, LABELS, generator=draw).argsort(dim=-1)
    which = torch.randint(LABELS, (*shape, EXAMPLES + 1), generator=draw)
    labels = label_of.gather(2, which) if linked else torch.randint(LABELS, which.shape, generator=draw)
    items = F.one_hot(chosen.gather(2, which), ITEMS).float()
    return questions_and_examples(items, F.one_hot(labels, LABELS).float()), labels


def lines(models: int, count: int, draw: torch.Generator) -> Problems:
    """Points of a random linear function, with noise in the examples' values."""
    weights = torch.randn(models, count, UNKNOWNS, 1, generator=draw)
    x = torch.randn(models, count, EXAMPLES + 1, UNKNOWNS, generator=draw)
    y = x @ weights + NOISE * torch.randn(models, count, EXAMPLES + 1, 1, generator=draw)
    return questions_and_examples(x, torch.cat([y, torch.ones_like(y)], dim=-1)), (x @ weights)[..., 0]


def questions_and_examples(inputs: Tensor, answers: Tensor) -> Tensor:
    """Each input without its answer, then with it."""
    question = torch.cat([inputs, torch.zeros_like(answers)], dim=-1)
    return torch.stack([question, torch.cat([inputs, answers], dim=-1)], dim=3).flatten(2, 3)


def best_accuracy(examples: int) -> float:
    """Hits of the best guesser: it knows items that it has seen, and guesses among the labels that are left."""
    distinct = np.eye(LABELS + 1)[0]  # probabilities of having seen 0, 1, … different items
    for _ in range(examples):
        seen = np.arange(LABELS + 1) / LABELS
        distinct = distinct * seen + np.concatenate([[0], (distinct * (1 - seen))[:-1]])
    counts = np.arange(LABELS)
    new = distinct[:-1] * (1 - counts / LABELS) / (LABELS - counts)
    return float((distinct * np.arange(LABELS + 1) / LABELS).sum() + new.sum())


def ridge(texts: Tensor, examples: int, penalty: float) -> Tensor:
    """Predictions (B,) of ridge regression on the first examples of each text, for the question after them."""
    pairs = texts[:, 1::2][:, :examples]
    x, y = pairs[..., :UNKNOWNS].double(), pairs[..., UNKNOWNS : UNKNOWNS + 1].double()
    gram = x.mT @ x + penalty * torch.eye(UNKNOWNS, dtype=torch.float64)
    weights = torch.linalg.pinv(gram) @ x.mT @ y
    question = texts[:, 2 * examples, :UNKNOWNS].double()
    return (question[:, None] @ weights)[:, 0, 0]


def guess_hits(seed: int) -> list[float]:
    """Chances of the best guesser on one random text, question by question."""
    seen, chances = set[int](), []
    for item in np.random.default_rng(seed).integers(LABELS, size=EXAMPLES + 1).tolist():
        chances.append(1.0 if item in seen else 1 / (LABELS - len(seen)))
        seen.add(item)
    return chances
