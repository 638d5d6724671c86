"""The way to a row: everything it rests on, in an order that never asks for what comes later, with its minutes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from underhood.atlas.catalogue import covering
from underhood.atlas.rows import Row, before
from underhood.core.milestone import Milestone

READING = 6.0
"""Minutes of reading guessed for a row whose milestone is not written yet."""


@dataclass(frozen=True)
class Step:
    """One stop: the rows it covers of those needed, its milestone if it is written, and its minutes."""

    rows: tuple[Row, ...]
    milestone: Milestone | None
    read: float
    run: float


def way(name: str, knows: Collection[str] = ()) -> list[Step]:
    """The stops to the row `name`, itself last. Rows known already, and what only they need, are left out."""
    needed = _needed(name, set(knows))
    built = covering()
    steps: dict[str, list[Row]] = {}
    for row in before(name):
        if row.id in needed:
            one = built.get(row.id)
            steps.setdefault(row.id if one is None else one.stem, []).append(row)
    found = []
    for rows_ in steps.values():
        one = built.get(rows_[0].id)
        read, run = (READING, 0.0) if one is None else (one.minutes.read, one.minutes.report)
        found.append(Step(tuple(rows_), one, read, run))
    return found


def _needed(name: str, knows: set[str]) -> set[str]:
    table = {row.id: row for row in before(name)}
    found: set[str] = set()
    todo = [name]
    while todo:
        id = todo.pop()
        if id not in found and (id not in knows or id == name):
            found.add(id)
            todo += table[id].needs
    return found
