"""Absent words: what a question names that no passage of an index has, so that it can only be refused."""

from __future__ import annotations

import re
from collections.abc import Iterable

from underhood.data.fact_forms import ABOUT, ANY_FIELD, DEFINED, DOES, FIELD_FORMS
from underhood.retrieve.followup import names_in, subject_words
from underhood.retrieve.passages import Passage

_OF_FORMS = frozenset(
    re.findall(
        r"[a-z]+",
        " ".join((*DEFINED, *DOES, *ABOUT, *ANY_FIELD, *(form for _, forms in FIELD_FORMS for form in forms))),
    )
)

SHORTEST = 4
"""Letters of a word that can be called absent: of shorter ones too many are in every text by chance."""


def absent_words(question: str, passages: Iterable[Passage]) -> list[str]:
    """The names and content words of a question that are nowhere in the passages, not even inside another word.

    Words that questions have for their form ("cost", "made") do not count: their absence says nothing.
    """
    typed = (*names_in(question), *(word for word in subject_words(question) if word in question))  # no synonyms
    words = {word.casefold(): word for word in typed if len(word) >= SHORTEST and word not in _OF_FORMS}
    for passage in passages:
        if not words:
            break
        text = f"{passage.title}\n{passage.text}\n{passage.search_text}".casefold()
        words = {folded: word for folded, word in words.items() if folded not in text}
    return list(words.values())
