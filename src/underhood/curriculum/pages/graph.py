"""The map as a graph: a column per era, a node per topic, a curve from what is needed to what needs it.

It has three views: the shortest path, what is important, and everything. Each holds its topics and all that they need,
so that no way leaves the view.
"""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from underhood.curriculum.index import covering
from underhood.curriculum.route import READING
from underhood.curriculum.search.page_data import page_data
from underhood.curriculum.topics import ERAS, TIERS, Topic, before, depths, topics

COLUMN, GAP, TOP, EDGE = 272, 8, 48, 16
"""Width of an era, space below a node, room for the era's name, and room for curves, in pixels."""
WIDTH = COLUMN - 2 * EDGE - 24
"""Of a node."""
LINE, PADDING, LINE_LETTERS = 17, 11, 22
"""Height of a line of a node's title, of the space around it, and the letters that fit into a line in a wide font."""


@dataclass(frozen=True)
class MapNode:
    """A topic at its place."""

    topic: Topic
    x: float
    y: float
    height: float
    page: str | None
    verdict: str | None


def draw(verdicts: Mapping[str, str | None]) -> dict[str, Any]:
    """Nodes, edges and eras with their places in the view of everything, for the template."""
    placed = place(topics())
    built = covering()
    nodes = []
    for id, (x, y) in placed.items():
        milestone = built.get(id)
        page = None if milestone is None else f"{milestone.stem}.html"
        nodes.append(MapNode(topics()[id], x, y, height(topics()[id]), page, verdicts.get(id)))
    edges = [{"from": need, "to": id, "path": _curve(placed, need, id)} for id in placed for need in topics()[id].needs]
    eras = [{"key": key, "title": title, "x": COLUMN * column} for column, (key, title) in enumerate(ERAS.items())]
    tall = max(node.y + node.height for node in nodes) + 16
    return {"nodes": nodes, "edges": edges, "eras": eras, "width": COLUMN * len(ERAS), "height": tall}


def height(topic: Topic) -> int:
    """Height of a topic's node: its title is never cut, it takes as many lines as it needs."""
    return PADDING + LINE * len(textwrap.wrap(topic.title, LINE_LETTERS, break_on_hyphens=False))


@cache
def view(tier: int) -> frozenset[str]:
    """The topics of a view: those up to the tier, and everything that they rest on."""
    chosen = [topic.id for topic in topics().values() if topic.tier <= tier]
    return frozenset(needed.id for id in chosen for needed in before(id))


def first_stop() -> Topic:
    """Where a newcomer begins: the first topic of the shortest path that needs nothing and has a milestone."""
    built = covering()
    return next(topic for topic in topics().values() if topic.tier == 1 and not topic.needs and topic.id in built)


def place(members: Collection[str]) -> dict[str, tuple[float, float]]:
    """The left upper corner of every node, in the order in which arrow keys go down a column.

    Within an era, topics with fewer prerequisites are higher; equals are near the mean height of what they need.
    """
    depth = depths()
    corners: dict[str, tuple[float, float]] = {}
    column = 0
    for key in ERAS:
        era = [topic for topic in topics().values() if topic.section == key and topic.id in members]
        if not era:
            continue
        inner = _inner_depths(era)

        def order(topic: Topic, inner: Mapping[str, int] = inner) -> tuple[float, float, int]:
            known = [corners[need][1] for need in topic.needs if need in corners]
            return inner[topic.id], sum(known) / len(known) if known else 0.0, depth[topic.id]

        y = TOP
        for topic in sorted(era, key=order):
            corners[topic.id] = (COLUMN * column + EDGE, y)
            y += height(topic) + GAP
        column += 1
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
            "era": ERAS[topic.section],
            "height": height(topic),
            "page": None if milestone is None else f"{milestone.stem}.html",
            "question": None if milestone is None else milestone.question,
            "verdict": verdicts.get(id),
            # A milestone of several topics is read once: its minutes count at its main topic.
            "read": READING if milestone is None else milestone.minutes.read if first else 0,
            "run": milestone.minutes.report if milestone is not None and first else 0,
        }
    views = {tier: place(view(tier)) for tier in TIERS}
    size = {"column": COLUMN, "edge": EDGE, "width": WIDTH}
    return {"topics": table, "views": views, "size": size, "first": first_stop().id, "search": page_data()}


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


def _curve(placed: Mapping[str, tuple[float, float]], start: str, end: str) -> str:
    """From the right side of what is needed to the left side of what needs it; within an era around the left."""
    (x1, y1), (x2, y2) = placed[start], placed[end]
    y1, y2 = y1 + height(topics()[start]) / 2, y2 + height(topics()[end]) / 2
    if x1 == x2:
        bend = x1 - min(EDGE - 2, 4 + abs(y2 - y1) / 40)
        return f"M{x1:g} {y1:g}C{bend:g} {y1:g} {bend:g} {y2:g} {x2:g} {y2:g}"
    if x1 < x2:
        x1 += WIDTH
    else:
        x2 += WIDTH
    half = max(24.0, abs(x2 - x1) / 2) * (1 if x1 < x2 else -1)
    return f"M{x1:g} {y1:g}C{x1 + half:g} {y1:g} {x2 - half:g} {y2:g} {x2:g} {y2:g}"
