"""Multiple choice by likelihood: each choice is scored after the prompt, nothing is generated.

Which choice counts as the model's answer depends on how lengths are treated: the plain sum of log probabilities favours
short choices, the mean per token depends on the tokenizer, the mean per byte on neither (the "acc_norm" of EleutherAI's
evaluation harness). All three are reported. Choices with equal scores share the credit, so a model that knows nothing
gets exactly the share of a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.evals.intervals import Interval, wilson
from underhood.evals.scoring import Continuation, score_continuations

Normalisation = Literal["raw", "token", "byte"]

TIE = 1e-5
"""Scores closer than this (nats) are equal: what summing a batch in another order can change."""


class MultipleChoiceQuestion(Protocol):
    """Text of a question; `answer` is the number of the right choice."""

    @property
    def prompt(self) -> str: ...
    @property
    def choices(self) -> Sequence[str]: ...
    @property
    def answer(self) -> int: ...


@dataclass(frozen=True)
class ChoiceItem:
    """A question in tokens, plain or already dressed in a chat template.

    Attributes:
        prompt: ids before the choice, at least one.
        choices: ids of each choice.
        byte_counts: UTF-8 length of each choice's text.
        answer: number of the right choice.
    """

    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    byte_counts: tuple[int, ...]
    answer: int

    def __post_init__(self):
        if not 0 <= self.answer < len(self.choices) or len(self.choices) != len(self.byte_counts):
            raise ValueError(
                f"answer {self.answer}, {len(self.choices)} choices and {len(self.byte_counts)} byte counts disagree"
            )


@dataclass(frozen=True)
class ChoiceScore:
    """What a model gave to one choice: Σ log p in nats, over how many tokens and bytes."""

    log_prob: float
    tokens: int
    bytes: int

    def normalised(self, by: Normalisation) -> float:
        return self.log_prob / {"raw": 1, "token": max(1, self.tokens), "byte": max(1, self.bytes)}[by]


@dataclass(frozen=True)
class ChoiceReport:
    """Scores of every choice of every item.

    Attributes:
        scores: per item, per choice.
        answers: the right choice of each item.
        chance: mean share of right answers by guessing.
    """

    scores: tuple[tuple[ChoiceScore, ...], ...]
    answers: tuple[int, ...]

    @property
    def chance(self) -> float:
        return float(np.mean([1 / len(choices) for choices in self.scores]))

    def credit(self, by: Normalisation = "byte") -> NDArray[np.float64]:
        """Per item: 1 where the best choice is the right one, 1 / k where k choices tie for best, else 0."""
        credit_N = np.zeros(len(self.scores))
        for n, (choices, answer) in enumerate(zip(self.scores, self.answers, strict=True)):
            values = np.array([choice.normalised(by) for choice in choices])
            best = values >= values.max() - TIE
            credit_N[n] = best[answer] / best.sum()
        return credit_N

    def over(self, prior: "ChoiceReport") -> "ChoiceReport":
        """The same with each choice's score divided by what it gets without its question: log p(c | q) − log p(c | q₀).

        A model prefers common sentences whatever was asked. Taking away what a choice scores after a neutral prompt
        leaves what the question adds: the domain-conditional PMI of Holtzman et al. 2021 (section 3), to be judged
        ``"raw"``.

        Args:
            prior: the same items scored with a prompt that asks for nothing in particular.

        Raises:
            ValueError: the two reports are of different items.
        """
        if self.answers != prior.answers or [len(c) for c in self.scores] != [len(c) for c in prior.scores]:
            raise ValueError("the prior must have scored the same items")
        scores = tuple(
            tuple(
                replace(choice, log_prob=choice.log_prob - without.log_prob)
                for choice, without in zip(choices, others, strict=True)
            )
            for choices, others in zip(self.scores, prior.scores, strict=True)
        )
        return ChoiceReport(scores, self.answers)

    def accuracy(self, by: Normalisation = "byte", *, level: float = 0.95) -> Interval:
        """Share of right answers with Wilson's interval."""
        return wilson(float(self.credit(by).sum()), len(self.scores), level=level)


def encode_choices(
    tokenizer: Tokenizer, questions: Sequence[MultipleChoiceQuestion], *, opening: Sequence[int] = ()
) -> list[ChoiceItem]:
    """Questions as plain text: each choice follows its prompt directly (a choice brings its own space).

    Prompt and choice are encoded as one text, as a model would meet it, and divided where the prompt's own tokens end.
    Spaces at the end of a prompt belong to the choice, where the tokenizer puts them.

    Args:
        opening: ids before every prompt, e.g. the end-of-text token that opens a document.
    """
    items = []
    for question in questions:
        prompt = question.prompt.rstrip(" ")
        tail = question.prompt[len(prompt) :]
        alone = tokenizer.encode(prompt)
        wholes = tokenizer.encode_batch([prompt + tail + choice for choice in question.choices])
        # A token that straddles the border belongs to the choice; all choices then start from the same prompt.
        shared = min(_common(alone, whole) for whole in wholes)
        items.append(
            ChoiceItem(
                (*opening, *alone[:shared]),
                tuple(tuple(whole[shared:]) for whole in wholes),
                tuple(len(choice.encode("utf-8")) for choice in question.choices),
                question.answer,
            )
        )
    return items


def encode_chat_choices(
    tokenizer: Tokenizer,
    questions: Sequence[MultipleChoiceQuestion],
    render: Callable[[str], Sequence[int]],
    end: Sequence[int] = (),
) -> list[ChoiceItem]:
    """Questions as a chat: `render(prompt)` gives the ids up to where the assistant begins to speak.

    Args:
        end: ids that close the assistant's turn, scored as part of every choice (or none).
    """
    return [
        ChoiceItem(
            tuple(render(question.prompt)),
            tuple((*ids, *end) for ids in tokenizer.encode_batch([choice.strip() for choice in question.choices])),
            tuple(len(choice.strip().encode("utf-8")) for choice in question.choices),
            question.answer,
        )
        for question in questions
    ]


def score_choices(
    model: LanguageModel,
    items: Sequence[ChoiceItem],
    *,
    batch_tokens: int = 8192,
    device: torch.device | str = "cpu",
) -> ChoiceReport:
    """Scores every choice after its prompt, many at a time (see `evals.scoring.score_continuations`)."""
    pieces = [Continuation(item.prompt, choice) for item in items for choice in item.choices]
    totals = iter(score_continuations(model, pieces, batch_tokens=batch_tokens, device=device).tolist())
    scores = tuple(
        tuple(
            ChoiceScore(next(totals), len(choice), count)
            for choice, count in zip(item.choices, item.byte_counts, strict=True)
        )
        for item in items
    )
    return ChoiceReport(scores, tuple(item.answer for item in items))


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many ids both begin with."""
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))
