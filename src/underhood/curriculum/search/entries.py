"""Search entry: one thing that a question can lead to, with the fields that are searched."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["milestone", "topic", "docs", "glossary", "command", "option", "code"]

KINDS: dict[Kind, str] = {
    "milestone": "milestone",
    "topic": "not written yet",
    "docs": "docs",
    "glossary": "glossary",
    "command": "command",
    "option": "option",
    "code": "code",
}
"""What the list of results calls each kind."""

KIND_WEIGHT: dict[Kind, float] = {
    "milestone": 1.0,
    "topic": 1.0,
    "docs": 1.1,
    "glossary": 1.15,
    "command": 1.1,
    "option": 0.8,
    "code": 0.75,
}
"""Factors of the scores: an explanation helps a newcomer more than a source file with the same words."""


@dataclass(frozen=True, kw_only=True)
class SearchEntry:
    """Something that exists, or a topic that is only planned.

    Attributes:
        target: unique, what it is called: ``docs/sampling.md#sampling``, ``underhood generate --top-k``.
        title: its heading in the list of results.
        named: its name where that is not the title: ``rope`` of ``nn/rope.py``.
        other_names: abbreviations and other full names.
        summary: one line about it.
        questions: questions that it answers, and other names.
        text: what it says; searched, not shown.
        names: names inside it (classes, functions, code); searched for little.
        page: the page of the path that shows it, with the anchor; empty where there is none.
        see: what to open or type to read it.
    """

    kind: Kind
    target: str
    title: str
    summary: str
    named: str = ""
    other_names: tuple[str, ...] = ()
    questions: str = ""
    text: str = ""
    names: str = ""
    page: str = ""
    see: str = ""

    @property
    def exists(self) -> bool:
        """False for a topic without a milestone."""
        return self.kind != "topic"

    @property
    def full_names(self) -> tuple[str, ...]:
        """What it is called; a question that is nothing but one of these gets it first."""
        return (re.sub(r"\([^)]*\)", "", self.named or self.title), *self.other_names)

    @property
    def fields(self) -> tuple[str, str, str, str]:
        """The searched fields in the order of `underhood.curriculum.search.ranking.FIELDS`."""
        return self.named or self.title, f"{self.questions}\n{self.summary}", self.text, self.names
