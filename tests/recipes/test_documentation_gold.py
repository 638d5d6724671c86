"""The gold reward of documentation answers: each of its four terms by itself, and taken away."""

from __future__ import annotations

import pytest

from underhood.align.rewards import SampledAnswer
from underhood.data.grounded import answer_from, function_text, shown_as
from underhood.data.instruct import NO_SUCH_NAME, NOT_THERE
from underhood.recipes.documentation_gold import WORDS_MAX, DocumentationGold, documentation_terms, is_faithful_to
from underhood.recipes.policy_stage import documentation_reward

SUMMARY = "Join two or more pathname components. Insert '/' as needed."
PASSAGE = shown_as("os.path.join", function_text(SUMMARY, ("a", "*p")))
RIGHT = answer_from("os.path.join", "Join two or more pathname components.")
GOLD = DocumentationGold()


def said(text: str, *, expected: str = RIGHT, finished: bool = True) -> SampledAnswer:
    return SampledAnswer("What does os.path.join do?", text, finished, {"answer": expected, "passage": PASSAGE})


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        (said(RIGHT), set()),
        (said(RIGHT, finished=False), {"ended"}),
        (said("`os.path.join`: Insert '/' as needed. [1]"), {"right"}),
        (said("`os.path.join`: Split a path. [1]"), {"right", "faithful"}),
        (said("`os.path.split`: Join two or more pathname components. [1]"), {"right", "faithful"}),
        (said(NOT_THERE), {"right", "faithful"}),
        (said(NO_SUCH_NAME.format(name="os.path.jion"), expected=NOT_THERE), set()),
        (said(RIGHT, expected=NOT_THERE), {"right"}),
        (said(""), {"right", "faithful"}),
        (said(" ".join(["Insert '/' as needed."] * 11)), {"right", "short"}),
        (said("Join two or more pathname components. Insert '/' as needed"), {"right"}),
    ],
)
def test_terms_of_an_answer(answer: SampledAnswer, missing: set[str]):
    terms = documentation_terms(answer)
    assert {name for name, value in terms.items() if not value} == missing
    lost = sum(getattr(GOLD, name) for name in missing)
    assert GOLD([answer]) == [pytest.approx(2.0 - lost)]


@pytest.mark.parametrize("term", ["right", "faithful", "ended", "short"])
def test_a_term_that_is_taken_away_is_paid_for_no_longer(term: str):
    worse = {
        "right": said("`os.path.join`: Insert '/' as needed. [1]"),
        "faithful": said("Split a path.", expected="Split a path."),
        "ended": said(RIGHT, finished=False),
        "short": said(long := "Insert '/' as needed. " * 11, expected=long),
    }[term]
    assert [name for name, value in documentation_terms(worse).items() if not value] == [term]
    best = said(RIGHT)
    assert GOLD.of(worse) < GOLD.of(best)
    assert GOLD.without(term).of(worse) == GOLD.without(term).of(best) == 2.0 - getattr(GOLD, term)


def test_the_right_and_ended_terms_are_what_the_policy_stage_rewards():
    answers = [said(RIGHT), said(RIGHT, finished=False), said(NOT_THERE), said(NOT_THERE, expected=NOT_THERE)]
    both = [float(terms["right"] and terms["ended"]) for terms in map(documentation_terms, answers)]
    assert both == documentation_reward(answers)


def test_a_passage_is_faithful_to_itself_and_no_longer_than_the_limit():
    assert is_faithful_to(PASSAGE, PASSAGE)
    assert not is_faithful_to(PASSAGE.replace("two", "three"), PASSAGE)
    assert len(PASSAGE.split()) <= WORDS_MAX
