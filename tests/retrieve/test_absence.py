"""Absent words: a question can be refused for a word that no passage has anywhere."""

from __future__ import annotations

import pytest

from underhood.retrieve.absence import absent_words
from underhood.retrieve.passages import Passage

PASSAGES = [
    Passage(title="Prices > Barrow", text="The wheelbarrow costs 12 €.", source="shop.md"),
    Passage(
        title="os.listdir",
        text="Return a list of the files in a folder.",
        source="module os",
        search_text="ENTRIES",
    ),
]


@pytest.mark.parametrize(
    ("question", "absent"),
    [
        ("How much does the barrow cost?", []),
        ("How much does the Rakebarrow cost?", ["Rakebarrow"]),
        ("What does os.listdir do?", []),
        ("what does textwrap.listdir do", ["textwrap.listdir"]),
        ("Where are the entries?", []),
        ("What is a fez?", []),  # three letters are too few to tell
        ("Is the WHEELBARROW a pushcart?", ["pushcart"]),
    ],
)
def test_absent_words_are_those_of_no_title_text_or_search_text(question: str, absent: list[str]) -> None:
    assert absent_words(question, PASSAGES) == absent


def test_without_passages_all_words_are_absent_but_those_of_the_form() -> None:
    assert absent_words("How much does the barrow cost?", []) == ["barrow"]
