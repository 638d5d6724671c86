"""Verbatim copies: how much of a text is word for word in another, in runs of some length."""

from __future__ import annotations


def copied_share(text: str, source: str, *, run: int) -> float:
    """The share of the text's characters that belong to a run of at least `run` characters that `source` has too.

    Every stretch of `run` characters of the text is looked up among all those of the source; a character counts if any
    stretch over it is there.
    """
    if len(text) < run:
        return 0.0
    known = {source[start : start + run] for start in range(len(source) - run + 1)}
    covered, copied = 0, 0  # characters before `covered` are decided
    for start in range(len(text) - run + 1):
        if text[start : start + run] in known:
            copied += start + run - max(covered, start)
            covered = start + run
    return copied / len(text)


def longest_copy(text: str, source: str) -> str:
    """The longest run of the text that the source has too."""
    longest = ""
    for start in range(len(text)):
        while start + len(longest) < len(text) and text[start : start + len(longest) + 1] in source:
            longest = text[start : start + len(longest) + 1]
    return longest
