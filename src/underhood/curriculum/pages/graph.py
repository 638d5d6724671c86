"""The map as a graph: a column per era, a node per topic, a curve from what is needed to what needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from underhood.curriculum.index import covering
from underhood.curriculum.route import READING
from underhood.curriculum.search.page_data import page_data
from underhood.curriculum.topics import ERAS, Topic, depths, topics

COLUMN, NODE, GAP, TOP, EDGE = 272, 26, 4, 44, 16
"""Width of an era, height of a node and space below it, room for the era's name, and room for curves, in pixels."""
WIDTH = COLUMN - 2 * EDGE - 24
"""Of a node."""


@dataclass(frozen=True)
class MapNode:
    """A topic at its place."""

    topic: Topic
    x: float
    y: float
    page: str | None
    verdict: str | None


def draw(verdicts: Mapping[str, str | None]) -> dict[str, Any]:
    """Nodes, edges and eras with their places, for the template."""
    placed = place()
    built = covering()
    nodes = []
    for id, (x, y) in placed.items():
        topic = topics()[id]
        milestone = built.get(id)
        nodes.append(MapNode(topic, x, y, None if milestone is None else f"{milestone.stem}.html", verdicts.get(id)))
    edges = [
        {"from": need, "to": id, "path": _curve(placed[need], placed[id]), "built": need in built and id in built}
        for id in placed
        for need in topics()[id].needs
    ]
    height = max(y for _, y in placed.values()) + NODE + 16
    eras = [{"key": key, "title": title, "x": COLUMN * column} for column, (key, title) in enumerate(ERAS.items())]
    return {"nodes": nodes, "edges": edges, "eras": eras, "width": COLUMN * len(ERAS), "height": height}


def place() -> dict[str, tuple[float, float]]:
    """The left upper corner of every node, in the order in which arrow keys go down a column.

    Within an era, topics with fewer prerequisites are higher; equals are near the mean height of what they need.
    """
    depth = depths()
    corners: dict[str, tuple[float, float]] = {}
    for number, key in enumerate(ERAS):
        members = [topic for topic in topics().values() if topic.section == key]
        inner = _inner_depths(members)

        def height(topic: Topic, inner: Mapping[str, int] = inner) -> tuple[float, float, int]:
            known = [corners[need][1] for need in topic.needs if need in corners]
            return inner[topic.id], sum(known) / len(known) if known else 0.0, depth[topic.id]

        for line, topic in enumerate(sorted(members, key=height)):
            corners[topic.id] = (COLUMN * number + EDGE, TOP + line * (NODE + GAP))
    return corners


def facts(verdicts: Mapping[str, str | None]) -> dict[str, Any]:
    """What the map's script knows: topics with what they need, and the search data."""
    built = covering()
    table = {}
    for id, topic in topics().items():
        milestone = built.get(id)
        first = milestone is not None and milestone.topics[0] == id
        table[id] = {
            "title": topic.title,
            "year": topic.year,
            "needs": topic.needs,
            "tier": topic.tier,
            "page": None if milestone is None else f"{milestone.stem}.html",
            "question": None if milestone is None else milestone.question,
            "verdict": verdicts.get(id),
            # A milestone of several topics is read once: its minutes count at its main topic.
            "read": READING if milestone is None else milestone.minutes.read if first else 0,
            "run": milestone.minutes.report if milestone is not None and first else 0,
        }
    return {"topics": table, "search": page_data()}


def _inner_depths(members: list[Topic]) -> dict[str, int]:
    """Steps of prerequisites within an era."""
    ids = {topic.id: topic for topic in members}
    levels: dict[str, int] = {}

    def depth(id: str) -> int:
        if id not in levels:
            levels[id] = 1 + max((depth(need) for need in ids[id].needs if need in ids), default=-1)
        return levels[id]

    for id in ids:
        depth(id)
    return levels


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    """From the right side of what is needed to the left side of what needs it; within an era around the left."""
    (x1, y1), (x2, y2) = start, end
    y1, y2 = y1 + NODE / 2, y2 + NODE / 2
    if x1 == x2:
        bend = x1 - min(EDGE - 2, 4 + abs(y2 - y1) / 40)
        return f"M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x2:g} {y2:g}"
    if x1 < x2:
        x1 += WIDTH
    else:
        x2 += WIDTH
    half = max(24.0, abs(x2 - x1) / 2) * (1 if x1 < x2 else -1)
    return f"M{x1:g} {y1:g}C{x1 + half:g} {y1:g} {x2 - half:g} {y2:g} {x2:g} {y2:g}"
