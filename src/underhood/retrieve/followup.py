"""Query rewriting: what a question of a conversation asks for, when it leans on the turns before it.

Deterministic rules in place of a model that rewrites the question (Elgohary et al. 2019): "and its parameters?" is
searched together with what the last turn was about. A search engine needs the subject only, not a fluent question.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from underhood.data.instruct import NO_SUCH_NAME
from underhood.retrieve.questions import parse_question
from underhood.text.chat import Message

_ASPECTS = frozenset(
    """
    parameter parameters argument arguments args option options default defaults return returns returned value values
    type types raise raises error errors exception exceptions signature function functions method methods class classes
    module modules call called syntax difference example examples detail details usage docs documentation meaning
    purpose summary short longer first last second next before after
    """.split()  # noqa: SIM905
)
"""Words that ask for a side of something and do not say of what."""

_POINTER = re.compile(
    r"\b(?:it|its|it's|they|them|their|this|that|these|those)\b"
    r"(?!\s+(?:possible|true|ok|okay|safe|better|worth|good|bad|common|allowed)\b)",
    re.IGNORECASE,
)
_GOES_ON = re.compile(r"^\W*(?:and|or|but|also|then|so)\b|^\W*(?:and\s+|or\s+)?(?:what|how)\s+about\b", re.IGNORECASE)
_ASKS_MORE = re.compile(r"\b(?:why|more|again|elaborate|continue|example|examples|else)\b", re.IGNORECASE)
_ABOUT_THE_MODEL = re.compile(
    r"\b(?:are|were)\s+(?:you|u)\b(?!\s+(?:able|sure|aware|familiar)\b)"
    r"|\byour\s+(?:name|age|purpose|job|creators?|makers?|developers?|parameters|size|weights)\b"
    r"|\b(?:made|built|trained|created|wrote|taught)\s+you\b",
    re.IGNORECASE,
)
_TITLE_OF_ANSWER = re.compile(rf"\s*`([^`\n]+)`: (?!{re.escape(NO_SUCH_NAME.rpartition('`: ')[2])})")
"""Of an answer that quotes a passage; a refusal begins with the name that nobody has."""


def search_query(messages: Sequence[Message]) -> str:
    """What to search for the last message of a conversation: the question, and its subject if earlier turns name it.

    - A question with a subject of its own (an identifier, or content words that no "it" precedes) is searched as it
      is: "How do I sort a list?"
    - A question without one that points back ("and its parameters?", "what does it return?", "why?") gets the subject
      of the turn before: the title of its answer ("`os.path.join`: …"), else the identifiers of the question, else
      its content words.
    - A question that goes on with another subject ("what about dedent?") keeps the rest of the old one: the module
      of its identifiers, or its content words.

    A question about the model itself ("who are you?") gives "": no document knows that. So does one without any
    content word, such as a greeting.
    """
    if not messages:
        return ""
    question = messages[-1]["content"]
    names, subject = names_in(question), subject_words(question)
    searchable = question if parse_question(question).terms else ""
    if _ABOUT_THE_MODEL.search(question) and not names:
        return ""
    if not names and _points_back(question, subject):
        earlier = _subject(messages[:-1])
        return f"{question} {earlier}" if earlier else searchable
    return _continuation(messages) or searchable


def _continuation(messages: Sequence[Message]) -> str:
    """The query of a question that goes on with another subject; "" for any other question."""
    question = messages[-1]["content"]
    names, subject = names_in(question), subject_words(question)
    if not _GOES_ON.search(question) or not 0 < len(subject) <= 2 or any("." in name for name in names):
        return ""
    named = " ".join(f"`{word}`" for word in subject)
    return " ".join([named, *_surroundings(_subject(messages[:-1]), subject)])


def _points_back(question: str, subject: Sequence[str]) -> bool:
    """Whether the question without identifiers leans on the turn before it."""
    pointer = _POINTER.search(question)
    if subject:
        return pointer is not None and pointer.start() < question.find(subject[0])
    asks_for_a_side = any(term.typed.casefold() in _ASPECTS for term in parse_question(question).terms)
    return bool(pointer or asks_for_a_side or _GOES_ON.search(question) or _ASKS_MORE.search(question))


def _subject(messages: Sequence[Message]) -> str:
    """What the conversation was about last, as a piece of a query; names in backticks."""
    for number in range(len(messages) - 1, -1, -1):
        message = messages[number]
        if message["role"] == "assistant":
            title = _TITLE_OF_ANSWER.match(message["content"])
            if title:
                return f"`{title[1]}`"
        elif message["role"] == "user":
            question = message["content"]
            if _ABOUT_THE_MODEL.search(question):
                continue
            names = names_in(question)
            if names:
                return " ".join(f"`{name}`" for name in names)
            subject = subject_words(question)
            if continuation := _continuation(messages[: number + 1]):
                return continuation
            if subject and not _points_back(question, subject):
                return " ".join(subject)
    return ""


def names_in(question: str) -> list[str]:
    """The identifiers of a question. "its", and "type" in "what type does it return", are names in backticks only."""
    pointer = _POINTER.search(question)
    return [
        name
        for name in parse_question(question).identifiers
        if f"`{name}" in question
        or f"{name}(" in question
        or not (_POINTER.fullmatch(name) or (pointer and name.casefold() in _ASPECTS))
    ]


def subject_words(question: str) -> list[str]:
    """The content words and names of a question, without those that ask for a side of something only."""
    names = names_in(question)
    typed = dict.fromkeys(term.typed for term in parse_question(question).terms)
    return [word for word in typed if word in names or not (word.casefold() in _ASPECTS or _POINTER.fullmatch(word))]


def _surroundings(subject: str, without: Sequence[str]) -> list[str]:
    """The subject without the names in it: the modules that they are in, and its other words."""
    words = []
    for word in subject.split():
        name = word.strip("`")
        words += name.split(".")[:-1] if word.startswith("`") else [name]
    return [word for word in dict.fromkeys(words) if word not in without and word != ">"]
