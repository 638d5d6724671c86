"""The run that a command takes where none is named: the newest one in this folder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from underhood.core.errors import UserError

RUNS = "runs"
"""Where ``underhood build`` puts runs that are given no folder."""

_TAIL = 65_536
"""Bytes at the end of a log that hold its last event."""


def run_or_newest(given: Path | None, *, model: bool = True) -> Path:
    """The run that was given, or the one whose log has the latest event; a line on standard error says which.

    Looks into the current folder, its folders, and those of ``runs``.

    Args:
        model: only runs that have a model.

    Raises:
        UserError: there is none.
    """
    if given is not None:
        return given
    here = Path()
    folders = [here, *_inside(here), *_inside(here / RUNS)]
    times = {folder: last_event(folder) for folder in folders if (folder / "events.jsonl").is_file()}
    times = {folder: when for folder, when in times.items() if not model or _has_model(folder)}
    if not times:
        raise UserError(
            "no run was named, and there is none here" + (" that has a model" if model else ""),
            expected=f"a run in this folder or in {RUNS}",
            fix="Make one with underhood build, or name a model, e.g. smollm2 (underhood models lists some)"
            if model
            else "Make one with underhood build",
        )
    newest = max(times, key=lambda folder: (times[folder], folder.as_posix()))
    shown = newest.resolve().name if newest == here else newest.as_posix()
    others = f", the newest of {len(times)} runs here" if len(times) > 1 else ", the only run here"
    print(f"{shown}{others}", file=sys.stderr)
    return newest


def last_event(run: Path) -> float:
    """When the last event of a run's log was written, in Unix seconds; the file's own time if no line says it."""
    log = run / "events.jsonl"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - _TAIL))
        lines = file.read().splitlines()
    for line in reversed(lines):
        try:
            when = json.loads(line)["time"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(when, (int, float)):
            return float(when)
    return log.stat().st_mtime


def _inside(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir()] if folder.is_dir() else []


def _has_model(run: Path) -> bool:
    from underhood.infer.stages import stages_of

    return bool(stages_of(run))
