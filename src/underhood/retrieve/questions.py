"""Query analysis: what a question asks for, as weighted terms and named identifiers."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from underhood.retrieve.question_words import NEVER_NAMES, STOP_WORDS, WEAK_WORDS
from underhood.retrieve.stemming import stem
from underhood.retrieve.synonyms import phrases, synonyms
from underhood.retrieve.terms import Token, terms_of_token, tokens

_NAME = r"[`'\"]?(?P<name>[^\W\d]\w*(?:\.\w+)*)[`'\"]?"
_FRAMES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"^\s*{_NAME}\s*(?:[?!.]+\s*)?$",
        rf"\bwhat(?:'s|’s| is| are| does| do| will| would| can)?\s+{_NAME}\s+(?:do|does|mean|for|return|take|give)\b",
        rf"\bwhat(?:'s|’s| is| are)\s+{_NAME}\s*(?:\?+\s*)?$",
        rf"\bhow (?:does|do|is|are)\s+{_NAME}\s+(?:work|used?|called|behave)\b",
        rf"\b(?:parameters?|arguments?|args|options|inputs)\s+(?:does|do|can|of|for|to)\s+{_NAME}",
        rf"\b(?:parameters?|arguments?|args|signature|purpose|meaning|description|documentation|docs|help)\s+"
        rf"(?:of|for|on|about)\s+{_NAME}",
        rf"\b(?:explain|describe|document|help)\s+{_NAME}\s*(?:[?!.]+\s*)?$",
        rf"\b(?:function|method|class|module)\s+{_NAME}",
        rf"\b(?<!\w\.){_NAME}\s+(?:function|method|class|module|parameters|arguments|signature)\b",
    )
]
"""Forms of question in which a plain word is a name: "what does dedent do", "parameters of open"."""


@dataclass(frozen=True)
class SearchTerm:
    """An index term, the word it comes from, and how much its match counts."""

    term: str
    word: str
    weight: float = 1.0


@dataclass(frozen=True)
class QueryTerm:
    """Something to look for: a word of the question or, for less, one of its synonyms.

    Attributes:
        alternatives: the best of these that a passage has counts; the first is what was typed.
        weight: how much the whole counts.
    """

    alternatives: tuple[SearchTerm, ...]
    weight: float = 1.0

    @property
    def term(self) -> str:
        return self.alternatives[0].term

    @property
    def typed(self) -> str:
        return self.alternatives[0].word


@dataclass(frozen=True)
class Query:
    """A question as the index sees it.

    Attributes:
        terms: what to look for in titles and texts, without the words that every question has.
        identifiers: names that the question is about, as they were typed, without backticks and "()".
    """

    terms: tuple[QueryTerm, ...]
    identifiers: tuple[str, ...]


PIECE_WEIGHT = 0.4
"""What each word in a compound counts beside the whole: *file* and *name* in "filename"."""
WEAK_WEIGHT = 0.6
"""What a word counts that many questions have, such as "get" or "two"."""


def parse_question(question: str) -> Query:
    """The terms and identifiers of a question; both are empty for a greeting."""
    words = list(tokens(question))
    named = _named(question, words)
    strong = [word for word in words if word in named or word.text.casefold() not in STOP_WORDS | WEAK_WORDS]
    if not strong:
        return Query((), ())
    chosen: dict[str, QueryTerm] = {}
    for word in words:
        if word not in named and word.text.casefold() in STOP_WORDS:
            continue
        weight = 1.0 if word in strong else WEAK_WEIGHT
        for position, term in enumerate(terms_of_token(word.text)):
            if term not in chosen:
                others = () if word in named else _synonyms(term)
                share = PIECE_WEIGHT if position and word not in named else 1.0
                chosen[term] = QueryTerm((SearchTerm(term, word.text), *others), weight * share)
    for phrase, word, weight in phrases(question):
        if weight == 1:
            weak = {stem(part_of_phrase) for part_of_phrase in phrase.split()}
            chosen = {
                term: replace(query, weight=WEAK_WEIGHT) if term in weak else query for term, query in chosen.items()
            }
        chosen.setdefault(stem(word), QueryTerm((SearchTerm(stem(word), word), *_synonyms(stem(word))), weight))
    return Query(tuple(chosen.values()), tuple(dict.fromkeys(word.text for word in words if word in named)))


def _synonyms(term: str) -> tuple[SearchTerm, ...]:
    return tuple(SearchTerm(stem(word), word, weight) for word, weight in synonyms(term) if stem(word) != term)


def _named(question: str, words: list[Token]) -> set[Token]:
    """The words that are names: by their form, by backticks or "()", or by the form of the question."""
    named = set()
    for word in words:
        before, after = question[: word.start], question[word.end :]
        marked = before.endswith("`") and after.startswith(("`", "()`", "("))
        if word.is_identifier or marked or after.startswith("("):
            named.add(word)
    for frame in _FRAMES:
        for match in frame.finditer(question):
            start = match.start("name")
            inside = [word for word in words if word.start == start and word.text.casefold() not in NEVER_NAMES]
            named.update(inside)
    return named
