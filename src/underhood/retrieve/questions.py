"""Query analysis: what a question asks for, as weighted terms and named identifiers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from underhood.retrieve.terms import STOP_WORDS, Token, terms_of_token, tokens

_NAME = r"[`'\"]?(?P<name>[^\W\d]\w*(?:\.\w+)*)[`'\"]?"
_FRAMES = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"^\s*{_NAME}\s*[?!.]*\s*$",
        rf"\bwhat(?:'s|’s| is| are| does| do| will| would| can)?\s+{_NAME}\s+(?:do|does|mean|for|return|take|give)\b",
        rf"\bwhat(?:'s|’s| is| are)\s+{_NAME}\s*\?*\s*$",
        rf"\bhow (?:does|do|is|are)\s+{_NAME}\s+(?:work|used?|called|behave)\b",
        rf"\b(?:parameters?|arguments?|args|options|inputs)\s+(?:does|do|can|of|for|to)\s+{_NAME}",
        rf"\b(?:parameters?|arguments?|args|signature|purpose|meaning|description|documentation|docs|help)\s+"
        rf"(?:of|for|on|about)\s+{_NAME}",
        rf"\b(?:explain|describe|document|help)\s+{_NAME}\s*[?!.]*\s*$",
        rf"\b(?:function|method|class|module)\s+{_NAME}",
        rf"\b{_NAME}\s+(?:function|method|class|module|parameters|arguments|signature)\b",
    )
]
"""Forms of question in which a plain word is a name: "what does dedent do", "parameters of open"."""


@dataclass(frozen=True)
class QueryTerm:
    """A term to look for, the word of the question that it comes from, and how much it counts."""

    term: str
    typed: str
    weight: float = 1.0


@dataclass(frozen=True)
class Query:
    """A question as the index sees it.

    Attributes:
        terms: what to look for in titles and texts, without the words that every question has.
        identifiers: names that the question is about, as they were typed, without backticks and "()".
    """

    terms: tuple[QueryTerm, ...]
    identifiers: tuple[str, ...]


def parse_question(question: str) -> Query:
    """The terms and identifiers of a question; both are empty for a greeting."""
    words = list(tokens(question))
    named = _named(question, words)
    content = [word for word in words if word in named or word.text.casefold() not in STOP_WORDS]
    seen: dict[str, QueryTerm] = {}
    for word in content:
        for term in terms_of_token(word.text):
            seen.setdefault(term, QueryTerm(term, word.text))
    return Query(tuple(seen.values()), tuple(dict.fromkeys(word.text for word in words if word in named)))


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
            inside = [word for word in words if word.start == start and word.text.casefold() not in _NEVER_NAMES]
            named.update(inside)
    return named


_NEVER_NAMES = frozenset(
    """
    a an and are can could did do does for from how i in into is it me my of on or please should so tell than that the
    there these they this those to use used was we were what when where which who why will with would you your hello hi
    hey thanks thank ok okay yes no bye
    """.split()  # noqa: SIM905
)
"""Words that stay words even where a name could be."""
