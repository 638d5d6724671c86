"""Simple English sentences by their parts: subject, verb and rest, and the base form of frequent verbs."""

from __future__ import annotations

import random

import pytest

from underhood.data.fact_forms import label_of
from underhood.data.sentence_parts import VERBS, asked_about, base_form, clause_of, words_between

BASES = {
    "takes": "take", "washes": "wash", "carries": "carry", "has": "have", "goes": "go", "uses": "use",
    "touches": "touch", "pays": "pay", "freezes": "freeze", "drives": "drive", "teaches": "teach", "closes": "close",
}  # fmt: skip


@pytest.mark.parametrize(("verb", "base"), BASES.items())
def test_base_form_of_a_verb_in_the_third_person(verb: str, base: str) -> None:
    assert base_form(verb) == base


def test_every_frequent_verb_is_in_the_third_person() -> None:
    assert all(verb.endswith("s") and base_form(verb) != verb for verb in VERBS)


@pytest.mark.parametrize(
    ("sentence", "parts"),
    [
        ("The heap is turned every six weeks.", ("The heap", "is", "turned every six weeks")),
        ("Membership costs 24 euros a year.", ("Membership", "costs", "24 euros a year")),
        ("The seed swap takes place on 14 March.", ("The seed swap", "takes", "place on 14 March")),
        ("In frost the pump is drained.", None),  # its subject is not at the beginning
        ("Plant early potatoes.", None),
        ("When they are empty, the pump runs.", None),
        ("If dry, water them; it helps.", None),
    ],
)
def test_clause_of_a_simple_sentence_and_of_no_other(sentence: str, parts: tuple[str, str, str] | None) -> None:
    assert clause_of(sentence) == parts


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("The heap", {"the heap", "heap"}),
        ("Our heap", {"the heap", "heap"}),
        ("Blades", {"blades", "Blades"}),
        ("Anna Berg", {"Anna Berg"}),
        ("T-11", {"T-11"}),
    ],
)
def test_subject_as_it_is_asked_about(subject: str, expected: set[str]) -> None:
    assert {asked_about(subject, random.Random(seed)) for seed in range(60)} == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("place on 14 March", "place"),
        (" turned ", "turned"),
        ("switched on at the box", "switched on"),
        ("due by the end", "due"),
        ("24 euros", ""),
        ("the", ""),
    ],
)
def test_words_that_belong_to_the_verb(text: str, words: str) -> None:
    assert words_between(text) == words


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("Price eur", "price"),
        ("Made in", "made in"),
        ("Colour of the flag", "colour of the flag"),
        ("ISBN", "ISBN"),
        ("Our heap has three bays", ""),
        ("Count after ten days", ""),
        ("Use Homebrew", ""),
        ("Use", "use"),
    ],
)
def test_label_of_a_field_and_not_of_a_sentence_with_a_colon(text: str, label: str) -> None:
    assert label_of(text) == label
