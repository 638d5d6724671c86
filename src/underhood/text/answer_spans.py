"""Spans of characters as spans of tokens: which tokens of a rendered conversation the assistant says.

A span's edges need the ids of the text up to them. Special tokens cut a text into stretches that are encoded one by
one, so only the stretch that an edge is in has to be encoded again, not everything before it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from underhood.core.protocols import Tokenizer

Parts = list[str | int]


class EncodedText:
    """A text with special tokens spelled out, its ids, and the ids that belong to its beginnings.

    Args:
        mark: a string that keeps spellings of special tokens from being one; it is taken out before encoding.

    Attributes:
        ids: of the whole text.
    """

    def __init__(self, tokenizer: Tokenizer, text: str, mark: str = ""):
        self._tokenizer, self._text, self._mark = tokenizer, text, mark
        self._matches = list(special_pattern(tuple(tokenizer.special)).finditer(text))
        self.ids = self._encode((), text)
        named = [tokenizer.special[match[0]] for match in self._matches]
        specials = set(named)
        places = [index for index, id in enumerate(self.ids) if id in specials]
        # A vocabulary's unknown token is special and may come of text as well: then nothing is known of the places.
        self._places = places if [self.ids[index] for index in places] == named else None

    def mask(self, spans: Sequence[tuple[int, int]]) -> list[bool]:
        """True for the tokens of these spans [start, end); one that reaches beyond a span's end belongs to it."""
        mask = [False] * len(self.ids)
        for start, end in spans:
            first, _ = self._common(start)
            last, whole = self._common(end)
            last += last < whole
            mask[first:last] = [True] * (last - first)
        return mask

    def _common(self, end: int) -> tuple[int, int]:
        """How many ids the text up to `end` shares with the whole text, and how many it has."""
        known, start = 0, 0
        opening: Sequence[int] = ()
        if self._places is not None:
            for match, index in zip(self._matches, self._places, strict=True):
                if match.end() > end:
                    break
                known, start, opening = index + 1, match.end(), [self.ids[index]]
        beginning = self._encode(opening, self._text[start:end])[len(opening) :]
        return known + common_prefix(beginning, self.ids[known : known + len(beginning)]), known + len(beginning)

    def _encode(self, opening: Sequence[int], text: str) -> list[int]:
        return encode_parts(self._tokenizer, [*opening, *split_special(text, self._tokenizer.special, self._mark)])


def split_special(text: str, special: Mapping[str, int], mark: str = "") -> Parts:
    """The text with each special spelling as its id; `mark`, which keeps spellings from being found, is taken out."""
    parts: Parts = []
    at = 0
    for match in special_pattern(tuple(special)).finditer(text):
        parts += [text[at : match.start()], special[match[0]]]
        at = match.end()
    parts.append(text[at:])
    if mark:
        parts = [piece.replace(mark, "") if isinstance(piece, str) else piece for piece in parts]
    return [piece for piece in parts if piece != ""]


def encode_parts(tokenizer: Tokenizer, parts: Sequence[str | int]) -> list[int]:
    """The ids of texts and special ids in a row, the tokenizer's own rules at the seams where it has such rules."""
    own: Callable[[Sequence[str | int]], list[int]] | None = getattr(tokenizer, "encode_parts", None)
    if own is not None:
        return own(parts)
    return [id for piece in parts for id in ([piece] if isinstance(piece, int) else tokenizer.encode(piece))]


@functools.lru_cache(maxsize=64)
def special_pattern(names: tuple[str, ...]) -> re.Pattern[str]:
    """An expression for the spellings of special tokens, the longest first."""
    # A name of one character could not be broken; no vocabulary has one.
    names = tuple(name for name in names if len(name) > 1)
    return re.compile("|".join(map(re.escape, sorted(names, key=len, reverse=True))) or "(?!)")


def common_prefix(left: Sequence[Any], right: Sequence[Any]) -> int:
    """How many elements two sequences share at the beginning."""
    shortest = min(len(left), len(right))
    if left[:shortest] == right[:shortest]:
        return shortest
    return next(index for index in range(shortest) if left[index] != right[index])
