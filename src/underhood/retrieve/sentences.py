"""Sentence segmentation: where the sentences of a text begin and end."""

from __future__ import annotations

import re

_END = re.compile(
    r"(?<![.!?…])[.!?…]+[\"'”’)\]`*_]*(?=\s|$)|[。！？｡]+[」』）”’]*"
    r"|\n[ \t]*\n\s*|\n(?=[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t])"
)
_ABBREVIATION = re.compile(
    r"(\be\.g|\bi\.e|\betc|\bcf|\bvs|\bresp|\bapprox|\bca|\bNo|\bDr|\bMr|\bMrs|\bProf|\bSt|\b[A-Z])\.$"
)

_ABBREVIATION_MAX = 16
"""Characters before a full stop in which an abbreviation is looked for."""

_NEXT_CHARACTER = re.compile(r"\s*(\S?)")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Start and end of every sentence, without the whitespace around it; together they cover every other character.

    A sentence ends at a full stop, question or exclamation mark before whitespace (or a full stop of Chinese and
    Japanese), unless it is an abbreviation, an open bracket precedes it, or a lower-case word follows it. A blank line
    and the beginning of a list item end one too.
    """
    spans: list[tuple[int, int]] = []
    start = counted = 0
    opened = 0  # brackets that are open in text[start:counted]
    for mark in _END.finditer(text):
        end = mark.end()
        opened += text.count("(", counted, end) - text.count(")", counted, end)
        counted = end
        if not mark[0].isspace():
            if opened > 0 or _ABBREVIATION.search(text[max(start, end - _ABBREVIATION_MAX) : end]):
                continue
            following = _NEXT_CHARACTER.match(text, end)
            if mark[0].startswith((".", "…")) and following is not None and following[1].islower():
                continue
        _append(spans, text, start, end)
        start, opened = end, 0
    _append(spans, text, start, len(text))
    return spans


def sentences(text: str) -> list[str]:
    """The sentences of a text in order, each a substring of it."""
    return [text[start:end] for start, end in sentence_spans(text)]


def _append(spans: list[tuple[int, int]], text: str, start: int, end: int) -> None:
    piece = text[start:end]
    if piece.strip():
        spans.append((start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())))
