"""Results on disk: ``<folder>/<stem>/<date>_<machine>.json``, the published ones and the user's own.

What a user measures goes to the user's data folder; the published results, which came with the code, are never changed
by it. A page shows both, each with its label.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import underhood
from underhood.core.errors import UserError
from underhood.core.files import write_text
from underhood.core.milestone import SCALES, Milestone
from underhood.core.user_folder import user_folder

Result = dict[str, Any]
"""What a result file holds; `underhood.curriculum.reproduce` writes it."""


def published() -> Path | None:
    """The results that came with the code: in a checkout ``results/``, in an installed package a folder of its own."""
    package = Path(underhood.__file__).parent
    for folder in (package / "results", package.parents[1] / "results"):
        if folder.is_dir():
            return folder
    return None


def user_results() -> Path:
    """The folder of the user's own results."""
    return user_folder() / "results"


def recorded() -> Path:
    """The results of the repository, for ``underhood reproduce --record``.

    Raises:
        UserError: this is an installed package, whose results are not under version control.
    """
    folder = published()
    if folder is None or folder.parent == Path(underhood.__file__).parent:
        raise UserError("--record writes into the repository's results, and this is an installed package")
    return folder


def places(own: Path | None) -> list[Path]:
    """Where results are looked for: the user's own folder first, unless it is the published one."""
    mine = own if own is not None else user_results()
    folders = [mine] if mine.is_dir() else []
    shipped = published()
    if shipped is not None and not any(folder.resolve() == shipped.resolve() for folder in folders):
        folders.append(shipped)
    return folders


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
        UserError: it is not one.
    """
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} is not a result of a milestone: {error}") from None
    if not isinstance(result, dict) or not {"milestone", "scale", "created", "claims"} <= set(result):
        raise UserError(f"{file} is not a result of a milestone", expected="milestone, scale, created and claims in it")
    return result


def all_of(stem: str, folder: Path) -> list[tuple[Path, Result]]:
    """Every result of a milestone in one folder, the oldest first."""
    return [(file, load(file)) for file in sorted((folder / stem).glob("*.json"))]


def latest(stem: str, folders: Iterable[Path]) -> tuple[Path, Result] | None:
    """The result that speaks for a milestone: a report before a smoke test, then the newest; None if there is none."""
    stored = [entry for folder in folders for entry in all_of(stem, folder)]
    return max(stored, key=lambda entry: (SCALES.index(entry[1]["scale"]), entry[1]["created"]), default=None)


@dataclass(frozen=True)
class Measurements:
    """The published result of a milestone and the user's own, each with its file."""

    published: tuple[Path, Result] | None
    own: tuple[Path, Result] | None

    @property
    def main(self) -> tuple[Path, Result] | None:
        """The one whose verdict is shown first: the published one, or the user's where none was published."""
        return self.published or self.own

    @property
    def beside(self) -> tuple[Path, Result] | None:
        """The user's own, if it is not already the main one."""
        return self.own if self.published is not None else None


def measurements(stem: str, folders: Iterable[Path]) -> Measurements:
    """The published and the user's own result of a milestone."""
    shipped = published()
    resolved = None if shipped is None else shipped.resolve()
    folders = list(folders)
    theirs = [folder for folder in folders if folder.resolve() == resolved]
    return Measurements(latest(stem, theirs), latest(stem, [folder for folder in folders if folder not in theirs]))


def overview(milestones: Iterable[Milestone], folders: Iterable[Path]) -> dict[str, tuple[Path, Result]]:
    """The main result of each milestone that has one."""
    folders = list(folders)
    main = {milestone.stem: measurements(milestone.stem, folders).main for milestone in milestones}
    return {stem: result for stem, result in main.items() if result is not None}
