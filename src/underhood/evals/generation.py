"""Evaluation of generated answers: exact match, F1, ROUGE-L, repetition, and refusals.

The caller generates the text: everything here takes a function from prompts to `GeneratedAnswer`s, or the answers.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from underhood.evals.intervals import Interval, bootstrap_mean, wilson

P = TypeVar("P")


@dataclass(frozen=True)
class GeneratedAnswer:
    """One text that a model wrote.

    Attributes:
        text: without the prompt and without the token that ended it.
        ended: it came to its end-of-turn (or end-of-text) token before the limit on its length.
    """

    text: str
    ended: bool


Generate = Callable[[Sequence[P]], Sequence[GeneratedAnswer]]


@dataclass(frozen=True)
class AnswerReport:
    """Answers beside what they should have said, item by item.

    Attributes:
        answers: what the model wrote.
        ended_N: 1 where the answer ended by itself.
        exact_N: 1 where it equals the reference, case, punctuation and articles aside (SQuAD's rule).
        prefix_N: 1 where it begins with the reference under the same rule: right, then went on.
        f1_N: F1 of the words both hold, order aside (Rajpurkar et al. 2016).
        rouge_l_N: F1 of their longest common subsequence of words (Lin 2004).
        repetition_N: share of the answer's 4-word runs that it had already used.
    """

    answers: tuple[GeneratedAnswer, ...]
    ended_N: NDArray[np.float64]
    exact_N: NDArray[np.float64]
    prefix_N: NDArray[np.float64]
    f1_N: NDArray[np.float64]
    rouge_l_N: NDArray[np.float64]
    repetition_N: NDArray[np.float64]

    @property
    def ended(self) -> Interval:
        return _share(self.ended_N)

    @property
    def exact(self) -> Interval:
        return _share(self.exact_N)

    @property
    def prefix(self) -> Interval:
        return _share(self.prefix_N)

    @property
    def rouge_l(self) -> Interval:
        return bootstrap_mean(self.rouge_l_N)

    @property
    def repetition(self) -> Interval:
        return bootstrap_mean(self.repetition_N)


@dataclass(frozen=True)
class RefusalReport:
    """Does the model know what it doesn't know?

    Attributes:
        invented_N: per question about something that doesn't exist, 1 where the model declined.
        real_N: per question about something that does exist, 1 where it declined all the same.
    """

    invented_N: NDArray[np.float64]
    real_N: NDArray[np.float64]
    invented_answers: tuple[GeneratedAnswer, ...]
    real_answers: tuple[GeneratedAnswer, ...]

    @property
    def invented(self) -> Interval:
        """Share of invented things that were refused: more is better."""
        return _share(self.invented_N)

    @property
    def real(self) -> Interval:
        """Share of real things that were refused: less is better."""
        return _share(self.real_N)


def evaluate_answers(generate: Generate[P], prompts: Sequence[P], references: Sequence[str]) -> AnswerReport:
    """Generates an answer to every prompt and compares it with its reference.

    Raises:
        ValueError: no prompts, or not as many references or answers as prompts.
    """
    answers = _answers(generate, prompts)
    if len(references) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, {len(references)} references")
    pairs = [(answer.text, reference) for answer, reference in zip(answers, references, strict=True)]
    return AnswerReport(
        answers,
        np.array([float(answer.ended) for answer in answers]),
        np.array([float(exact_match(*pair)) for pair in pairs]),
        np.array([float(prefix_match(*pair)) for pair in pairs]),
        np.array([token_f1(*pair) for pair in pairs]),
        np.array([rouge_l(*pair) for pair in pairs]),
        np.array([repetition(answer.text) for answer in answers]),
    )


def evaluate_refusals(
    generate: Generate[P], invented: Sequence[P], real: Sequence[P], is_refusal: Callable[[str], bool]
) -> RefusalReport:
    """Asks about invented and about real things; `is_refusal` says whether a text declines to answer."""
    of_invented, of_real = _answers(generate, invented), _answers(generate, real)
    return RefusalReport(
        np.array([float(is_refusal(answer.text)) for answer in of_invented]),
        np.array([float(is_refusal(answer.text)) for answer in of_real]),
        of_invented,
        of_real,
    )


def exact_match(answer: str, reference: str) -> bool:
    """Equal once case, punctuation, articles and spacing are set aside."""
    return normalised(answer) == normalised(reference)


def prefix_match(answer: str, reference: str) -> bool:
    """The answer begins with all of the reference's words, under the same rule."""
    words, expected = normalised(answer), normalised(reference)
    return words[: len(expected)] == expected


def token_f1(answer: str, reference: str) -> float:
    """Harmonic mean of the shares of either's words that the other holds too (with multiplicity); 1 if both empty."""
    words, expected = normalised(answer), normalised(reference)
    if not words or not expected:
        return float(words == expected)
    return _f1(sum((Counter(words) & Counter(expected)).values()), len(words), len(expected))


def rouge_l(answer: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (runs of letters and digits, lower case; no stemming)."""
    words, expected = (re.findall(r"[^\W_]+", text.lower()) for text in (answer, reference))
    if not words or not expected:
        return float(words == expected)
    return _f1(_longest_common_subsequence(words, expected), len(words), len(expected))


def repetition(text: str, run: int = 4) -> float:
    """Share of the text's runs of `run` words that occurred earlier in it; 0 for texts with fewer than two runs."""
    words = text.split()
    runs = [tuple(words[i : i + run]) for i in range(len(words) - run + 1)]
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def normalised(text: str) -> list[str]:
    """Words in lower case without punctuation and English articles (the rule of SQuAD's own scorer)."""
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in {"a", "an", "the"}]


def _answers(generate: Generate[P], prompts: Sequence[P]) -> tuple[GeneratedAnswer, ...]:
    if not prompts:
        raise ValueError("no prompts to answer")
    answers = tuple(generate(prompts))
    if len(answers) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, {len(answers)} answers")
    return answers


def _longest_common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    best = [0] * (len(right) + 1)
    for word in left:
        diagonal = 0
        for j, other in enumerate(right, start=1):
            diagonal, best[j] = best[j], diagonal + 1 if word == other else max(best[j], best[j - 1])
    return best[-1]


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs)


def _share(values_N: NDArray[np.float64]) -> Interval:
    return wilson(float(values_N.sum()), len(values_N))
