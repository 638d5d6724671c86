"""Highlighting: where the words of a question are in a passage."""

from __future__ import annotations

from collections.abc import Iterable

from underhood.retrieve.terms import terms_of_token, tokens


def matched_spans(text: str, words: Iterable[str]) -> list[tuple[int, int]]:
    """Start and end, in characters, of the words of `text` that share an index term with one of `words`.

    So "files" marks "file", and ``os.path.join`` marks ``join`` and ``os.path``. Neighbouring letters of writing
    without spaces are one token and are marked together.

    Args:
        words: the matched words of a hit, as they were typed (`Hit.matched`).
    """
    wanted = {term for word in words for term in terms_of_token(word)}
    return [(token.start, token.end) for token in tokens(text) if wanted.intersection(terms_of_token(token.text))]
