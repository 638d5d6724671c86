"""Text analysis for search: words and identifiers of a text or a question as index terms."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import regex

from underhood.retrieve.stemming import stem

TERMS_VERSION = 1
"""Raised whenever `terms` gives other terms for any text: saved indexes of another version are analysed again."""

_LETTER = r"[\p{L}\p{N}_]"
TOKEN = regex.compile(
    rf"{_LETTER}[\p{{L}}\p{{M}}\p{{N}}_]*(?:\.[\p{{L}}_][\p{{L}}\p{{M}}\p{{N}}_]*)*(?:['’]\p{{L}}{{1,2}}\b)?"
)
_WORDS_OF_NAME = regex.compile(r"\p{Lu}+(?=\p{Lu}\p{Ll})|\p{Lu}?[\p{Ll}\p{Lo}\p{M}]+|\p{Lu}+|\p{N}+")
_UNSPACED = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]+")
_ACCENTS = regex.compile(r"[\u0300-\u036f]")
_ELISION = regex.compile(r"['’]\p{L}{1,2}$")
_CASE_INSIDE = regex.compile(r"\p{Ll}\p{Lu}|\p{Lu}{2}\p{Ll}")

STOP_WORDS = frozenset(
    """
    a about all also am an and any anyone are as at available be been being best but by can cannot could did do does
    doing done each easy easiest either else ever every example examples explain fast few for from get gets getting give
    gives go goes got had has have having hello help hey hi how i if in into is it its just know let like make makes
    making many may me mean means method might more most much must my need needs new no of off ok okay on once one only
    or other our out over own please python quick quickly same shall should show simple simplest so some somebody
    someone something such tell than thank thanks that the their them then there these they thing things this those to
    through too try trying up us use used uses using very via want wants was way ways we were what whats when where
    whether which while who whom whose why will with within without work works would
    you your yours bye good morning evening
    """.split()  # noqa: SIM905
)
"""Words of a question that say nothing about what it asks for, greetings included."""


@dataclass(frozen=True)
class Token:
    """A word or identifier of a text as it is written, and its position."""

    text: str
    start: int
    end: int

    @property
    def is_identifier(self) -> bool:
        """Whether it can only be a name of code: dotted, with an underscore, or with capitals inside."""
        return "." in self.text or "_" in self.text.strip("_") or bool(_CASE_INSIDE.search(self.text))


def tokens(text: str) -> Iterator[Token]:
    """The words of a text; a dotted name is one token."""
    for match in TOKEN.finditer(text):
        yield Token(_ELISION.sub("", match[0]), match.start(), match.end())


def terms(text: str) -> list[str]:
    """The index terms of a text, in order.

    A word becomes its stem. An identifier becomes itself and the words in it: ``os.path.join`` gives *os.path.join*,
    *os*, *path*, *join*; ``OrderedDict`` gives *ordereddict*, *order*, *dict*. Writing without spaces between words
    (Chinese, Japanese, Thai) gives pairs of neighbouring characters. Case and Latin accents make no difference.
    """
    result: list[str] = []
    for token in TOKEN.findall(text):
        result += terms_of_token(token)
    return result


@lru_cache(maxsize=200_000)
def terms_of_token(token: str) -> tuple[str, ...]:
    """The index terms of one word or identifier."""
    token = _ELISION.sub("", unicodedata.normalize("NFKC", token))
    if token.isascii() and token.islower() and token.isalpha():
        return (stem(token),)
    if _UNSPACED.search(token):
        return tuple(_character_pairs(token))
    words = [_fold(word) for segment in token.split(".") for word in _WORDS_OF_NAME.findall(segment)]
    whole = _fold(token)
    if len(words) < 2:
        return (stem(words[0]) if words and words[0] == whole else whole,)
    return (whole, *map(stem, words))


def _character_pairs(token: str) -> Iterator[str]:
    """Bigrams of each run of unspaced writing, as in Lucene's CJKBigramFilter; the rest of the token as terms."""
    end = 0
    for run in _UNSPACED.finditer(token):
        if run.start() > end:
            yield from terms_of_token(token[end : run.start()])
        characters = run[0]
        yield from (characters[i : i + 2] for i in range(max(1, len(characters) - 1)))
        end = run.end()
    if end < len(token):
        yield from terms_of_token(token[end:])


def _fold(word: str) -> str:
    """Without case and Latin accents; the marks of other scripts stay, because they are letters there."""
    folded = word.casefold()
    if folded.isascii():
        return folded
    return unicodedata.normalize("NFC", _ACCENTS.sub("", unicodedata.normalize("NFD", folded)))
