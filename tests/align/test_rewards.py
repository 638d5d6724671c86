"""Verifiers on answers whose worth is plain, and what a reward function must give."""

from __future__ import annotations

import math

import pytest

from underhood.align.rewards import VERIFIERS, LengthReward, SampledAnswer, last_number, score_answers
from underhood.core.errors import UserError


def answer(text: str, right: str = "42", finished: bool = True) -> SampledAnswer:
    return SampledAnswer("What?", text, finished, {"answer": right})


@pytest.mark.parametrize(
    ("name", "text", "right", "score"),
    [
        ("exact", " 42\n", "42", 1),
        ("exact", "42.", "42", 0),
        ("contains", "It is PARIS, of course", "Paris", 1),
        ("contains", "It is Rome", "Paris", 0),
        ("number", "6 times 7 is 42.", "42", 1),
        ("number", "42, or rather 43", "42", 0),
        ("number", "1,234.50 in all", "so far\n#### 1234.5", 1),
        ("number", "−3", "-3", 1),
        ("number", "none", "3", 0),
        ("number", "3", "none", 0),
        ("finished", "anything", "42", 1),
    ],
)
def test_verifier(name: str, text: str, right: str, score: int):
    assert score_answers(VERIFIERS[name], [answer(text, right)]) == [score]


def test_unfinished_and_long_answers():
    assert VERIFIERS["finished"]([answer("a", finished=False)]) == [0.0]
    assert LengthReward(4)([answer(" ".join(["w"] * count)) for count in (1, 4, 6, 8, 20)]) == [1, 1, 0.5, 0, 0]


def test_last_number():
    assert last_number("12 and .5") == 0.5
    assert last_number("x1,000,000y") == 1_000_000
    assert last_number("no digits") is None


def test_a_record_without_the_right_answer_is_named():
    with pytest.raises(UserError, match="no field 'answer'"):
        VERIFIERS["exact"]([SampledAnswer("What?", "x", True, {"prompt": "What?"})])


def test_a_reward_function_must_give_one_finite_number_per_answer():
    with pytest.raises(UserError, match="gave 1 scores"):
        score_answers(lambda answers: [1.0], [answer("a"), answer("b")])
    for bad in (math.nan, math.inf, None, "much"):
        with pytest.raises(UserError, match="gave"):
            score_answers(lambda answers, bad=bad: [bad], [answer("a")])  # type: ignore[list-item]
