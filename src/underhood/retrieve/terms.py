"""Text analysis for search: words and identifiers of a text or a question as index terms."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import regex

from underhood.retrieve.compounds import words_of_compound
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
    *os*, *path*, *join*; ``OrderedDict`` gives *ordereddict*, *order*, *dict*; ``listdir`` gives *listdir*, *list*,
    *dir*. Writing without spaces between words
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
        return _with_words(token, words_of_compound(token))
    if _UNSPACED.search(token):
        return tuple(_character_pairs(token))
    words = [_fold(word) for segment in token.split(".") for word in _WORDS_OF_NAME.findall(segment)]
    whole = _fold(token)
    words = [piece for word in words for piece in words_of_compound(word) or (word,)]
    if len(words) < 2:
        return (stem(words[0]) if words and words[0] == whole else whole,)
    return (whole, *map(stem, words))


def _with_words(token: str, words: Sequence[str]) -> tuple[str, ...]:
    return (stem(token), *map(stem, words))


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
