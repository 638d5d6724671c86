"""Topics of the path and their prerequisites, in the order of the path.

`topics.tsv` holds one topic per line. A milestone (a folder of `underhood.path`) covers one topic or several.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from underhood.core.errors import UserError, nearest

ERAS = {
    "A": "Mathematics",
    "B": "Neural networks",
    "C": "Language models before networks",
    "D": "Neural language models",
    "E": "The Transformer and GPT",
    "F": "Seeing inside",
    "G": "Modern parts",
    "H": "Scale, data and systems",
    "I": "From model to assistant",
    "J": "Hallucination",
    "K": "The Transformer family",
    "L": "Agents",
    "M": "Prompting",
    "N": "Retrieval inside the model",
    "O": "Systems around the model",
}
"""Sections in the order of the path."""

TIERS = {1: "on the shortest path", 2: "important", 3: "breadth"}
GRADES = {
    "A": "the published experiment itself",
    "B": "an identity, theorem, count or parity",
    "C": "the shape of the claim, at small scale",
    "D": "the mechanism only, at small scale",
    "E": "a story or an interface",
}


@dataclass(frozen=True)
class Topic:
    """One topic: `needs` are the ids of what to know first, `year` is None where no single one fits."""

    id: str
    section: str
    year: int | None
    tier: int
    grade: str
    module: str
    needs: tuple[str, ...]
    title: str


@lru_cache(maxsize=1)
def topics() -> dict[str, Topic]:
    """All topics by id, in the order of the path."""
    with Path(__file__).with_name("topics.tsv").open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        return {
            line["id"]: Topic(
                id=line["id"],
                section=line["section"],
                year=int(line["year"]) if line["year"] else None,
                tier=int(line["tier"]),
                grade=line["grade"],
                module=line["module"],
                needs=tuple(line["needs"].split(",")) if line["needs"] else (),
                title=line["title"],
            )
            for line in table
        }


def topic(name: str) -> Topic:
    """The topic with that id.

    Raises:
        UserError: there is none; the message has the nearest.
    """
    known = topics()
    if name not in known:
        near = nearest(name, known)
        raise UserError(f"no topic {name!r} on the path", fix=f"Did you mean {near}?" if near else None)
    return known[name]


def before(name: str) -> list[Topic]:
    """Everything a topic rests on, itself last: prerequisites of prerequisites, each after what it needs.

    There is no shorter way: all of them are needed. Among those that could come next, the path's order decides.
    """
    known = topics()
    ordered: dict[str, Topic] = {}

    def visit(id: str) -> None:
        if id not in ordered:
            for need in sorted(known[id].needs, key=list(known).index):
                visit(need)
            ordered[id] = known[id]

    visit(name)
    return list(ordered.values())


def after(name: str) -> list[Topic]:
    """The topics that need this one directly."""
    return [other for other in topics().values() if name in other.needs]


def depths() -> dict[str, int]:
    """How many steps of prerequisites lie before each topic: 0 for one that needs nothing."""
    levels: dict[str, int] = {}

    def depth(id: str) -> int:
        if id not in levels:
            levels[id] = 1 + max((depth(need) for need in topics()[id].needs), default=-1)
        return levels[id]

    for id in topics():
        depth(id)
    return levels
