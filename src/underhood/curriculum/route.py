"""The way to a topic: everything it rests on, in an order that never asks for what comes later, with its minutes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from underhood.core.milestone import Milestone
from underhood.curriculum.index import covering
from underhood.curriculum.topics import Topic, before

READING = 6.0
"""Minutes of reading guessed for a topic whose milestone is not written yet."""


@dataclass(frozen=True)
class Step:
    """One stop: the topics it covers of those needed, its milestone if it is written, and its minutes."""

    topics: tuple[Topic, ...]
    milestone: Milestone | None
    read: float
    run: float


def path_to(name: str, knows: Collection[str] = ()) -> list[Step]:
    """The stops to the topic `name`, itself last. Topics known already, and what only they need, are left out."""
    needed = _needed(name, set(knows))
    built = covering()
    steps: dict[str, list[Topic]] = {}
    for topic in before(name):
        if topic.id in needed:
            one = built.get(topic.id)
            steps.setdefault(topic.id if one is None else one.stem, []).append(topic)
    found = []
    for members in steps.values():
        one = built.get(members[0].id)
        read, run = (READING, 0.0) if one is None else (one.minutes.read, one.minutes.report)
        found.append(Step(tuple(members), one, read, run))
    return found


def _needed(name: str, knows: set[str]) -> set[str]:
    table = {topic.id: topic for topic in before(name)}
    found: set[str] = set()
    todo = [name]
    while todo:
        id = todo.pop()
        if id not in found and (id not in knows or id == name):
            found.add(id)
            todo += table[id].needs
    return found
