"""Route to a topic: its prerequisites in topological order, with minutes of reading and running."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from underhood.core.milestone import Milestone
from underhood.curriculum.index import covering
from underhood.curriculum.topics import Topic, before

READING = 6.0
"""Minutes of reading guessed for a topic whose milestone is not written yet."""


@dataclass(frozen=True)
class RouteStop:
    """One stop of a route: the needed topics that it covers, its milestone if it is written, and its minutes."""

    topics: tuple[Topic, ...]
    milestone: Milestone | None
    read: float
    run: float


def path_to(name: str, knows: Collection[str] = ()) -> list[RouteStop]:
    """The stops to the topic `name`, itself last. Topics known already, and what only they need, are left out."""
    needed = _needed(name, set(knows))
    built = covering()
    steps: dict[str, list[Topic]] = {}
    for topic in before(name):
        if topic.id in needed:
            milestone = built.get(topic.id)
            steps.setdefault(topic.id if milestone is None else milestone.stem, []).append(topic)
    stops = []
    for members in steps.values():
        milestone = built.get(members[0].id)
        read, run = (READING, 0.0) if milestone is None else (milestone.minutes.read, milestone.minutes.report)
        stops.append(RouteStop(tuple(members), milestone, read, run))
    return stops


def _needed(name: str, knows: set[str]) -> set[str]:
    table = {topic.id: topic for topic in before(name)}
    needed: set[str] = set()
    todo = [name]
    while todo:
        id = todo.pop()
        if id not in needed and (id not in knows or id == name):
            needed.add(id)
            todo += table[id].needs
    return needed
