"""Highlighting: the words of a passage that a question matched."""

from __future__ import annotations

from itertools import pairwise

import pytest

from underhood.retrieve.highlight import matched_spans


@pytest.mark.parametrize(
    ("text", "words", "marked"),
    [
        ("A file, and the files of a folder.", ["files"], ["file", "files"]),
        ("Join with os.path.join(a, b).", ["join"], ["Join", "os.path.join"]),
        ("Join with os.path.join(a, b).", ["os.path.join"], ["Join", "os.path.join"]),
        ("The OrderedDict keeps its order.", ["ordered"], ["OrderedDict", "order"]),
        ("🙂 Ünïcödé, then a list.", ["unicode", "LIST"], ["Ünïcödé", "list"]),
        ("Nothing here.", ["list"], []),
        ("Nothing here.", [], []),
        ("", ["list"], []),
    ],
)
def test_spans_are_the_words_with_a_common_term(text: str, words: list[str], marked: list[str]) -> None:
    spans = matched_spans(text, words)
    assert [text[start:end] for start, end in spans] == marked
    assert all(end <= start for (_, end), (start, _) in pairwise(spans))
