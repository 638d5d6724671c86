"""Which milestones there are: read from their files without running them, so that the map opens at once.

A milestone file assigns ``MILESTONE = Milestone(…)``. Only that expression, the plain values it names and its imports
from `underhood.core.milestone` are evaluated here; the rest of the file, torch and all, waits for ``reproduce``.
"""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import underhood.path
from underhood.core.errors import UserError, nearest
from underhood.core.milestone import Milestone
from underhood.core.trial import Trial

STEM = re.compile(r"p[0-9]{4}_[a-z0-9_]+")


@lru_cache(maxsize=1)
def milestones() -> dict[str, Milestone]:
    """All milestones by stem, in the order of the path (that of their main topics)."""
    from underhood.curriculum.topics import topics

    found = [read(file) for file in sorted(folder().glob("p[0-9]*.py")) if STEM.fullmatch(file.stem)]
    order = {id: place for place, id in enumerate(topics())}
    return {one.stem: one for one in sorted(found, key=lambda one: (order[one.topics[0]], one.stem))}


def folder() -> Path:
    """Where the milestones' files lie."""
    return Path(underhood.path.__path__[0])


def read(file: Path) -> Milestone:
    """The milestone that a file describes, without importing the file.

    AssertionError if the file has none, or builds it from more than data: a bug of the milestone's author.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
    assigned: dict[str, ast.stmt] = {}
    needed: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            assigned[node.targets[0].id] = node
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            assigned[node.target.id] = node
        elif isinstance(node, ast.ImportFrom) and node.module == "underhood.core.milestone":
            needed.append(node)
    assert "MILESTONE" in assigned, f"{file.name} assigns no MILESTONE"
    wanted, todo = {"MILESTONE"}, ["MILESTONE"]
    while todo:
        for node in ast.walk(assigned[todo.pop()]):
            if isinstance(node, ast.Name) and node.id in assigned and node.id not in wanted:
                wanted.add(node.id)
                todo.append(node.id)
    needed += [node for name, node in assigned.items() if name in wanted]
    needed.sort(key=lambda node: node.lineno)
    space: dict[str, Any] = {}
    exec(compile(ast.Module(body=needed, type_ignores=[]), str(file), "exec"), space)
    one = space["MILESTONE"]
    assert isinstance(one, Milestone), f"{file.name}: MILESTONE is no Milestone"
    assert one.stem == file.stem, f"{file.name}: its stem is {one.stem!r}"
    return one


def find(name: str) -> Milestone:
    """The milestone called `name`, or that covers the topic `name`, or whose stem ends in ``_name``.

    Raises:
        UserError: there is none; the message has the nearest.
    """
    from underhood.curriculum.topics import topics

    known = milestones()
    if name in known:
        return known[name]
    fitting = [one for one in known.values() if name in one.topics]
    fitting = fitting or [one for one in known.values() if one.stem.partition("_")[2] == name]
    if fitting:
        return fitting[0]
    if name in topics():
        raise UserError(f"the topic {name} has no milestone yet", fix=f"underhood path to {name} shows the way there")
    near = nearest(name, [*known, *(id for one in known.values() for id in one.topics)])
    fix = f"Did you mean {near}?" if near else "underhood path lists them"
    raise UserError(f"no milestone {name!r}", fix=fix)


def covering() -> dict[str, Milestone]:
    """The milestone of each topic that has one."""
    return {id: one for one in milestones().values() for id in one.topics}


def runner(stem: str) -> Callable[[Trial], None]:
    """The milestone's ``run``; imports its file and all that it needs."""
    return importlib.import_module(f"underhood.path.{stem}").run


def source(stem: str) -> Path:
    """The milestone's file."""
    return folder() / f"{stem}.py"
