"""Questions made from facts: the form fits the fact, the answer is in the passage, invented names are unknown."""

from __future__ import annotations

import random
import re

import pytest

from underhood.data.fact_examples import FactPassage, fact_examples, invented_questions
from underhood.data.fact_questions import questions_about
from underhood.data.instruct import NOT_THERE

PASSAGES = [
    FactPassage("Shop > Borea lamp", "Price: 64.50. Material: steel.", ("Price: 64.50.", "Material: steel.")),
    FactPassage("Shop > Tarn bottle", "Price: 23.50. Made in: Austria.", ("Price: 23.50.", "Made in: Austria.")),
    FactPassage(
        "Office",
        "Anna Berg keeps the keys of the archive. The driver disk is in the second drawer.",
        ("Anna Berg keeps the keys of the archive.", "The driver disk is in the second drawer."),
    ),
    FactPassage(
        "Office > Coffee",
        "The machine is descaled every second Monday.",
        ("The machine is descaled every second Monday.",),
    ),
]


def all_questions(title: str, sentence: str, *, first: bool = True) -> set[str]:
    """Every question that many draws make, without capitals and marks."""
    return {
        question.casefold().rstrip("?.")
        for seed in range(200)
        for question in questions_about(title, sentence, random.Random(seed), first=first)
    }


@pytest.mark.parametrize(
    ("title", "sentence", "question"),
    [
        ("Shop > Borea lamp", "Price eur: 64.50.", "how much does the borea lamp cost"),
        ("Shop > Borea lamp", "Material: steel.", "what is the borea lamp made of"),
        ("Shop > Borea lamp", "Made in: Spain.", "where is the borea lamp made"),
        ("Shop > Borea lamp", "Stock: 12.", "how many borea lamps are in stock"),
        ("Oslo", "Mayor: Anne Lind.", "who is the mayor of oslo"),
        ("Oslo", "Founded: 1048.", "when was oslo founded"),
        ("Oslo", "Colour of the flag: blue.", "what is the colour of the flag of oslo"),
        ("Commands > --quiet", "Prints errors only.", "what does --quiet do"),
        ("Words > Reef", "A file that has changed on both sides.", "what is a reef"),
        ("Why is it slow?", "It reads every file.", "why is it slow"),
        ("Club", "Miriam Oduya chairs the club.", "who chairs the club"),
        ("Notes", "Leaf mould is made of leaves.", "what is leaf mould"),
    ],
)
def test_question_has_the_form_that_people_use_for_such_a_fact(title, sentence, question):
    assert question in all_questions(title, sentence)


def test_question_word_fits_what_the_sentence_names():
    sentence = "The seed swap takes place on 14 March in the hall."
    whens = {question for question in all_questions("Seeds", sentence, first=False) if question.startswith("when")}
    wheres = {question for question in all_questions("Seeds", sentence, first=False) if question.startswith("where")}
    assert any("swap" in question for question in whens)
    assert any("swap" in question for question in wheres)
    assert not any("march" in question for question in whens)
    assert not any("hall" in question for question in wheres)


def test_answers_quote_their_passage_and_refusals_follow_passages_without_them():
    examples = fact_examples(PASSAGES, lambda _: [("Office", "x")], seed=0)
    answered = [example for example in examples if example.kind == "sentence"]
    sentences = {sentence for passage in PASSAGES for sentence in passage.sentences}
    assert {example.answer.removesuffix(" [1]").partition("`: ")[2] for example in answered} == sentences
    for example in answered:
        assert example.answer.removesuffix(" [1]").partition("`: ")[2] in example.question.partition("\n\n")[2]
    assert all(example.answer == NOT_THERE for example in examples if example.kind == "unanswered")
    assert any(example.kind == "unanswered" for example in examples)
    assert fact_examples(PASSAGES, lambda _: [("Office", "x")], seed=0) == examples
    assert fact_examples(PASSAGES, lambda _: [("Office", "x")], seed=1) != examples


def test_invented_questions_name_what_no_passage_has():
    known = {word.casefold() for passage in PASSAGES for word in re.findall(r"\w+", f"{passage.title} {passage.text}")}
    questions = invented_questions(PASSAGES, 20, seed=0)
    assert len(set(questions)) == len(questions) > 5
    for question in questions:
        unknown = set(re.findall(r"\w+", question.casefold())) - known
        assert any(len(word) > 3 for word in unknown), question
