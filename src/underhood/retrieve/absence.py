"""Absent words: what a question names that no passage of an index has, so that it can only be refused."""

from __future__ import annotations

from collections.abc import Iterable

from underhood.retrieve.followup import names_in, subject_words
from underhood.retrieve.passages import Passage

SHORTEST = 4
"""Letters of a word that can be called absent: of shorter ones too many are in every text by chance."""


def absent_words(question: str, passages: Iterable[Passage]) -> list[str]:
    """The names and content words of a question that are nowhere in the passages, not even inside another word."""
    typed = (*names_in(question), *(word for word in subject_words(question) if word in question))  # no synonyms
    words = {word.casefold(): word for word in typed if len(word) >= SHORTEST}
    for passage in passages:
        if not words:
            break
        text = f"{passage.title}\n{passage.text}\n{passage.search_text}".casefold()
        words = {folded: word for folded, word in words.items() if folded not in text}
    return list(words.values())
