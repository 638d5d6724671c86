"""A model's score on a test set, with intervals and every item's numbers."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from underhood.evals.gsm8k import STOPS, is_right
from underhood.evals.intervals import Interval, bootstrap_mean, wilson
from underhood.evals.likelihood import LikelihoodScorer
from underhood.evals.multiple_choice import ChoiceReport, ChoiceScore
from underhood.evals.table import Measurement, measurement
from underhood.evals.task_data import TestSet, load_set, with_examples
from underhood.evals.tasks import Task
from underhood.evals.writing import write_until

MAX_ANSWER = 256
"""Tokens that a worked answer may take."""


@dataclass(frozen=True, kw_only=True)
class TaskReport:
    """What a model scored on one set.

    Attributes:
        task: the set.
        shots: worked examples in front of each question.
        source: where the questions were read.
        measurements: accuracies (and LAMBADA's perplexity), with 95 % intervals.
        items: per question what was given and scored, as plain values.
    """

    task: Task
    shots: int
    source: str
    measurements: tuple[Measurement, ...]
    items: tuple[dict[str, Any], ...]

    def to_json(self, *, items: bool = False) -> dict[str, Any]:
        """Plain values; `items` keeps what was found for every question."""
        numbers = {
            m.name: {
                "value": m.value,
                "low": m.low,
                "high": m.high,
                "chance": m.chance,
            }
            for m in self.measurements
        }
        head = {"task": self.task.name, "shots": self.shots, "questions": len(self.items), "source": self.source}
        return head | {"results": numbers} | ({"items": list(self.items)} if items else {})


def score_task(
    reader: LikelihoodScorer,
    task: Task,
    folders: Sequence[Path] = (),
    *,
    limit: int | None = None,
    shots: int | None = None,
    stop_ids: Collection[int] = (),
) -> TaskReport:
    """Scores a model on a set.

    Args:
        folders: where the set's files are; none means the Hugging Face Hub.
        limit: only the first so many questions.
        shots: worked examples in front of each question; None means the set's own custom.
        stop_ids: tokens that end a written answer.

    Raises:
        UserError: the set can't be read, or a question does not fit the model.
    """
    count = task.shots if shots is None else shots
    questions = load_set(task, folders, limit=limit, shots=count)
    score = {"choice": _choice, "last word": _last_word}.get(task.kind)
    if score is not None:
        measurements, items = score(reader, questions, count)
    else:
        measurements, items = _generation(reader, questions, count, stop_ids)
    return TaskReport(
        task=task, shots=count, source=questions.source, measurements=tuple(measurements), items=tuple(items)
    )


Found = tuple[list[Measurement], list[dict[str, Any]]]


def _choice(reader: LikelihoodScorer, questions: TestSet, shots: int) -> Found:
    """The likeliest choice by its log probability as it is, and by the same per byte."""
    pieces, lengths = [], []
    for number, item in enumerate(questions.items):
        contexts = with_examples(questions, number, shots)
        pieces += [reader.pair(*texts) for texts in zip(contexts, item.continuations, strict=True)]
        lengths += [len(text.strip().encode("utf-8")) for text in item.continuations]
    values = iter(zip(reader.score(pieces).tolist(), pieces, lengths, strict=True))
    scores = tuple(
        tuple(
            ChoiceScore(total, len(piece.tokens), length)
            for total, piece, length in islice(values, len(item.continuations))
        )
        for item in questions.items
    )
    report = ChoiceReport(scores, tuple(item.answer for item in questions.items))
    chance = report.chance
    measurements = [_accuracy("accuracy", report.credit("raw"), chance)]
    if any(len({piece.bytes for piece in choices}) > 1 for choices in scores):  # else it would be the same number
        measurements.append(_accuracy("accuracy per byte", report.credit("byte"), chance))
    items = [
        {
            "log_probs": [choice.log_prob for choice in choices],
            "bytes": [choice.bytes for choice in choices],
            "answer": answer,
        }
        for choices, answer in zip(report.scores, report.answers, strict=True)
    ]
    return measurements, items


def _last_word(reader: LikelihoodScorer, questions: TestSet, shots: int) -> Found:
    """Would the model itself write the word, and how surprised is it by it?"""
    pieces = [
        reader.pair(with_examples(questions, number, shots)[0], item.target)
        for number, item in enumerate(questions.items)
    ]
    logs, greedy = reader.score(pieces), reader.greedy(pieces)
    nats = bootstrap_mean(-logs)
    perplexity = Interval(math.exp(nats.value), _exp(nats.low), _exp(nats.high), nats.n, nats.level)
    measurements = [
        _accuracy("accuracy", greedy.astype(float), None),
        measurement("perplexity of the word", perplexity, unit="", higher_is_better=False),
    ]
    items = [{"log_prob": log, "greedy": best} for log, best in zip(logs.tolist(), greedy.tolist(), strict=True)]
    return measurements, items


def _generation(reader: LikelihoodScorer, questions: TestSet, shots: int, stop_ids: Collection[int]) -> Found:
    """A worked answer, written greedily; only its final number counts."""
    prompts = [reader.open(with_examples(questions, number, shots)[0]) for number in range(len(questions.items))]
    context = reader.model.context_length
    tokens = MAX_ANSWER if context is None else min(MAX_ANSWER, context // 2)
    texts = write_until(reader.model, reader.tokenizer, prompts, STOPS, max_new_tokens=tokens, stop_ids=stop_ids)
    right = [is_right(text, item.target) for text, item in zip(texts, questions.items, strict=True)]
    items = [{"text": text, "right": correct} for text, correct in zip(texts, right, strict=True)]
    return [_accuracy("exact match", np.array(right, dtype=float), None)], items


def _accuracy(name: str, credit: np.ndarray, chance: float | None) -> Measurement:
    """A share with its bootstrap interval; where all items agree no draw differs, and Wilson's takes its place."""
    right, count = float(credit.sum()), len(credit)
    interval = bootstrap_mean(credit) if 0 < right < count and count > 1 else wilson(right, count)
    return measurement(name, interval, chance=chance, numerators=credit)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
