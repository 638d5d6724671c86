"""Text analysis of the search: terms of documents and of questions, simple enough to run in a page as well.

Documents use the index terms of `underhood.retrieve.terms`. A question's words are stemmed alike; ``search.js`` repeats
`question_words` and `root_of`, and a test holds the two together.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from underhood.retrieve.question_words import STOP_WORDS
from underhood.retrieve.stemming import stem
from underhood.retrieve.terms import terms

STOPPED = STOP_WORDS - {"fast", "quick", "quickly", "without"} | {"happen", "happens", "mean", "difference", "really"}
"""Words that are not searched for. Speed is something that one asks about here."""

WORD = re.compile(r"[a-z0-9]+")
HYPHENATED = re.compile(r"(?<![\w-])([a-z]+)-([a-z]+)(?![\w-])", re.IGNORECASE)
SUFFIXES = ("ization", "ational", "ation", "ition", "ator", "izer", "ion", "ness", "ment", "or", "er", "al", "iv", "ic")
ROOT_MIN = 4
"""Letters that must remain of a word without its ending."""


def document_terms(text: str) -> list[str]:
    """The terms of a text; "fine-tune" gives *fine*, *tune* and *finetun*."""
    joined = [stem((first + second).lower()) for first, second in HYPHENATED.findall(text)]
    return [american(term) for term in [*terms(text), *joined]]


def question_words(question: str) -> list[str]:
    """The stems of a question's words in order, without those that are not searched for."""
    plain = unicodedata.normalize("NFD", question.lower())
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).replace("’", "'")
    plain = re.sub(r"'[a-z]{1,2}\b", "", plain)
    return [american(stem(word)) for word in WORD.findall(plain) if word not in STOPPED]


@lru_cache(maxsize=50_000)
def american(term: str) -> str:
    """The American spelling of a stem, so that *normalise* and *normalize*, *behaviour* and *behavior* meet."""
    if len(term) > 6:
        term = re.sub(r"is(|ation|er)$", r"iz\1", term)
    return re.sub(r"(?<=[a-z]{3})our$", "or", term)


def root_of(term: str) -> str:
    """What derived words share: *quantiz* of *quantization* and *quantizer*; the term itself where it is short."""
    for suffix in SUFFIXES:
        if term.endswith(suffix) and len(term) - len(suffix) >= ROOT_MIN:
            rest = term.removesuffix(suffix)
            return rest + "iz" if suffix in ("ization", "izer") else rest
    return term
