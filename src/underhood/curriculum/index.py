"""Index of the milestones: read from their folders without importing their code, so that the map opens at once."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import underhood.path
from underhood.core.errors import UserError, nearest
from underhood.core.milestone import Milestone, read_milestone
from underhood.core.trial import Trial
from underhood.curriculum.topics import topics

STEM = re.compile(r"p[0-9]{4}_[a-z0-9_]+")


@lru_cache(maxsize=1)
def milestones() -> dict[str, Milestone]:
    """All milestones by stem, in the order of the path (that of their main topics)."""
    order = {id: position for position, id in enumerate(topics())}
    folders = [folder for folder in path_folder().iterdir() if STEM.fullmatch(folder.name)]
    listed = sorted(map(read_milestone, folders), key=lambda milestone: (order[milestone.topics[0]], milestone.stem))
    return {milestone.stem: milestone for milestone in listed}


def path_folder() -> Path:
    """The folder with one folder per milestone."""
    return Path(underhood.path.__path__[0])


def find(name: str) -> Milestone:
    """The milestone called `name`.

    That is its stem (with or without the ``p``, with hyphens or underscores), the id of a topic that it covers, or the
    end of its stem (``markov`` of ``p1913_markov``).

    Raises:
        UserError: there is none; the message has the nearest.
    """
    known = milestones()
    spelt = name.strip().lower().replace("-", "_").removesuffix(".html")
    for stem in (spelt, f"p{spelt}"):
        if stem in known:
            return known[stem]
    matches = [milestone for milestone in known.values() if name in milestone.topics]
    matches = matches or [milestone for milestone in known.values() if milestone.stem.partition("_")[2] == spelt]
    if matches:
        return matches[0]
    if name in topics():
        raise UserError(
            f"the topic {name} has no milestone yet", fix=f"underhood path to {name} lists what to read first"
        )
    near = nearest(name, [*known, *(id for milestone in known.values() for id in milestone.topics)])
    fix = f"Did you mean {near}?" if near else "underhood path lists them"
    raise UserError(f"no milestone {name!r}", fix=fix)


def covering() -> dict[str, Milestone]:
    """The milestone of each topic that has one."""
    return {id: milestone for milestone in milestones().values() for id in milestone.topics}


def runner(stem: str) -> Callable[[Trial], None]:
    """The milestone's ``run``; imports its code and all that it needs."""
    return importlib.import_module(f"underhood.path.{stem}.run").run


def sources(stem: str) -> list[Path]:
    """The files that decide what a milestone measures."""
    return [path_folder() / stem / name for name in ("milestone.toml", "run.py")]
