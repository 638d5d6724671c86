"""Recall with a known cause: many letters, one of them marked, and a question at the end that wants it.

``k a · c ! b a · · c ?`` wants b, because b follows the mark. Only the mark and the letter after it decide.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

LETTERS, BLANKS = 16, 16
MARK, QUESTION = LETTERS + BLANKS, LETTERS + BLANKS + 1
VOCABULARY = LETTERS + BLANKS + 2
LENGTH = 24


@dataclass(frozen=True)
class Recall:
    """Prompts with their answers.

    Attributes:
        tokens: (N, T); letters are the first ids, the question is the last token.
        answers: the letter after the mark, (N,).
        cause: the position of that letter, (N,); the mark is before it.
    """

    tokens: Int[Tensor, "N T"]
    answers: Int[Tensor, "N"]
    cause: Int[Tensor, "N"]


def marked_recall(count: int, generator: torch.Generator) -> Recall:
    """Random prompts; other letters than the marked one come once or more each, as distractors."""
    tokens_NT = torch.randint(LETTERS + BLANKS, (count, LENGTH), generator=generator)
    cause_N = torch.randint(1, LENGTH - 1, (count,), generator=generator)
    answers_N = torch.randint(LETTERS, (count,), generator=generator)
    rows = torch.arange(count)
    again_NT = tokens_NT == answers_N[:, None]  # the answer is in no other place
    tokens_NT = torch.where(again_NT, LETTERS + tokens_NT, tokens_NT)
    tokens_NT[rows, cause_N - 1], tokens_NT[rows, cause_N] = MARK, answers_N
    tokens_NT[:, -1] = QUESTION
    return Recall(tokens_NT, answers_N, cause_N)
