"""Export folder: made under another name beside its target, moved there in one step when it is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.files import fsync_folder, storage_errors


@contextmanager
def making(target: Path, *, folder: bool, replace: bool) -> Iterator[Path]:
    """Yields a path to write to (an empty folder, or the name of a file); afterwards it is at `target`.

    If the block fails, or is interrupted, nothing of it remains and whatever was at `target` is untouched.

    Args:
        folder: whether a folder is made, or a file.
        replace: whether an existing `target` may be replaced.

    Raises:
        UserError: there is something at `target` already, or the place can't be written.
    """
    empty = target.is_dir() and not any(target.iterdir())
    if target.exists() and target.is_dir() != folder:
        kind, other = ("a folder", "a file") if folder else ("a file", "a folder")
        raise UserError(f"{target} is {other}", expected=f"the name of {kind} to make")
    if target.exists() and not empty and not replace:
        raise UserError(f"{target} is there already", fix="Choose another --out, or give --replace")
    temporary = target.with_name(f".making-{target.name}")
    with storage_errors(target, "Nothing was left behind; free some space or choose another --out"):
        target.parent.mkdir(parents=True, exist_ok=True)
        _remove(temporary)
        try:
            if folder:
                temporary.mkdir()
            yield temporary
            _move(temporary, target)
        finally:
            _remove(temporary)
        fsync_folder(target.parent)


def _move(temporary: Path, target: Path) -> None:
    if not target.is_dir():
        os.replace(temporary, target)
        return
    # A folder can't be replaced in one step: the old one steps aside, and comes back if the new one can't follow.
    aside = target.with_name(f".replaced-{target.name}")
    _remove(aside)
    os.rename(target, aside)
    try:
        os.rename(temporary, target)
    except BaseException:
        os.rename(aside, target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
