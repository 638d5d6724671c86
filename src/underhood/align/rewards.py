"""Reward functions: what scores sampled answers in reinforcement learning, and verifiers with a checkable truth.

A reward function gets a batch of answers at once and returns one number for each. Verifiers compare with the record
that the prompt came from (its field ``answer``), as in reinforcement learning with verifiable rewards (Lambert et al.
2024, section 6).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from underhood.core.errors import UserError

REFERENCE = "answer"
"""The field of a record that holds the right answer."""

_NUMBER = re.compile(r"[-−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|[-−]?\.\d+")


@dataclass(frozen=True)
class SampledAnswer:
    """An answer that a policy has sampled.

    Attributes:
        prompt: the question as text.
        answer: the text that the model wrote, its end marker left out.
        finished: it ended by itself; otherwise it was cut off at the longest length allowed.
        record: the data's record that the prompt came from, with the right answer for a verifier.
        messages: the whole conversation before the answer, where the prompt came from one.
    """

    prompt: str
    answer: str
    finished: bool
    record: Mapping[str, Any] = field(default_factory=dict)
    messages: Sequence[Mapping[str, str]] = ()


RewardFunction = Callable[[Sequence[SampledAnswer]], Sequence[float]]
"""Scores a batch of answers, one finite number each; higher is better."""


def score_answers(reward: RewardFunction, answers: Sequence[SampledAnswer], name: str = "the reward") -> list[float]:
    """The scores of a reward function, checked.

    Raises:
        UserError: not one finite number per answer.
    """
    values = list(reward(answers))
    if len(values) != len(answers):
        raise UserError(f"{name} gave {len(values)} scores", expected=f"one for each of {len(answers)} answers")
    scores: list[float] = []
    for answer, value in zip(answers, values, strict=True):
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            raise UserError(
                f"{name} gave {value!r} to the answer {answer.answer[:40]!r}", expected="a finite number per answer"
            )
        scores.append(score)
    return scores


def exact_match(answers: Sequence[SampledAnswer]) -> list[float]:
    """1 where the answer is the record's, letter by letter but for white space at both ends; else 0."""
    return [float(each.answer.strip() == _reference(each).strip()) for each in answers]


def contains(answers: Sequence[SampledAnswer]) -> list[float]:
    """1 where the record's answer occurs in the answer, in any case of letters; else 0."""
    return [float(_reference(each).strip().casefold() in each.answer.casefold()) for each in answers]


def number_match(answers: Sequence[SampledAnswer]) -> list[float]:
    """1 where the answer's last number equals the last number of the record's answer; else 0.

    Thousands may be grouped by commas: 1,234.50 equals 1234.5. GSM8K's answers end with ``#### 42``.
    """
    return [float(_is_number(last_number(each.answer), last_number(_reference(each)))) for each in answers]


def finished_answer(answers: Sequence[SampledAnswer]) -> list[float]:
    """1 where the answer ended by itself; 0 where it was cut off."""
    return [float(each.finished) for each in answers]


@dataclass(frozen=True)
class LengthReward:
    """Reward for an answer's length in words: 1 up to `words`, falling linearly to 0 at twice as many."""

    words: int

    def __call__(self, answers: Sequence[SampledAnswer]) -> list[float]:
        return [min(1.0, max(0.0, 2 - len(each.answer.split()) / self.words)) for each in answers]


VERIFIERS: Mapping[str, RewardFunction] = {
    "exact": exact_match,
    "number": number_match,
    "contains": contains,
    "finished": finished_answer,
}
"""Rewards that a command knows by name."""

NEEDS_REFERENCE = frozenset({"exact", "number", "contains"})
"""Verifiers that read the record's right answer."""


def last_number(text: str) -> float | None:
    """The last number in a text, or None."""
    matches = _NUMBER.findall(text)
    return float(matches[-1].replace(",", "").replace("−", "-")) if matches else None


def _is_number(value: float | None, expected: float | None) -> bool:
    return value is not None and expected is not None and math.isclose(value, expected, rel_tol=1e-9, abs_tol=1e-9)


def _reference(answer: SampledAnswer) -> str:
    if REFERENCE not in answer.record:
        raise UserError(
            f"a record has no field {REFERENCE!r} to compare with",
            got=f"the fields {', '.join(answer.record) or 'none'}",
            fix="Put the right answer there, or choose another reward",
        )
    return str(answer.record[REFERENCE])
