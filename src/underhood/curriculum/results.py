"""Results on disk: ``results/<stem>/<date>_<machine>.json``, and which of them speaks for a milestone."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import underhood
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.milestone import SCALES, Milestone

Result = dict[str, Any]
"""What a result file holds; `underhood.curriculum.reproduce` writes it."""


def published() -> Path | None:
    """The results that came with the code: in a checkout ``results/``, in an installed package a folder of its own."""
    package = Path(underhood.__file__).parent
    for place in (package / "results", package.parents[1] / "results"):
        if place.is_dir():
            return place
    return None


def places(own: Path | None) -> list[Path]:
    """Where results are looked for: the user's own folder first."""
    mine = own if own is not None else Path("results")
    found = [mine] if mine.is_dir() else []
    shipped = published()
    if shipped is not None and not any(one.resolve() == shipped.resolve() for one in found):
        found.append(shipped)
    return found


def path_for(folder: Path, result: Result) -> Path:
    """The file of a result: its date and its machine."""
    return folder / result["milestone"] / f"{result['created'][:10]}_{result['machine']['name']}.json"


def save(folder: Path, result: Result) -> Path:
    """Writes a result and returns its path. A smoke result never replaces a report of the same day.

    Raises:
        UserError: the place can't be written.
    """
    target = path_for(folder, result)
    if result["scale"] == "smoke":
        target = target.with_name(target.stem + "_smoke.json")
    write(target, result)
    return target


def write(file: Path, result: Result) -> None:
    """Writes a result file (UserError if the place can't be written)."""
    write_text(file, json.dumps(result, ensure_ascii=False, indent=1) + "\n")


def load(file: Path) -> Result:
    """A result file.

    Raises:
        UserError: it is no result.
    """
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is no result of a milestone: {error}") from None
    if not isinstance(found, dict) or not {"milestone", "scale", "created", "claims"} <= set(found):
        raise UserError(f"{file} is no result of a milestone", expected="milestone, scale, created and claims in it")
    return found


def all_of(stem: str, folder: Path) -> list[tuple[Path, Result]]:
    """Every result of a milestone in one folder, the oldest first."""
    return [(file, load(file)) for file in sorted((folder / stem).glob("*.json"))]


def latest(stem: str, folders: Iterable[Path]) -> tuple[Path, Result] | None:
    """The result that speaks for a milestone: a report before a smoke test, then the newest; None if there is none."""
    found = [entry for folder in folders for entry in all_of(stem, folder)]
    return max(found, key=lambda one: (SCALES.index(one[1]["scale"]), one[1]["created"]), default=None)


def overview(milestones: Iterable[Milestone], folders: Iterable[Path]) -> dict[str, tuple[Path, Result]]:
    """The latest result of each milestone that has one."""
    folders = list(folders)
    found = {one.stem: latest(one.stem, folders) for one in milestones}
    return {stem: result for stem, result in found.items() if result is not None}
