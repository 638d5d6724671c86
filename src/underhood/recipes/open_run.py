"""Opening a run from Python: ``underhood.open_run("runs/NAME")``."""

from __future__ import annotations

from pathlib import Path

from underhood.infer.arguments import check_path
from underhood.recipes.run import Run


def open_run(path: str | Path) -> Run:
    """The run in a folder: its settings, its models and its training curves, also while it is being built.

    Raises:
        UserError: there is no run (the nearest others are named), or its settings are damaged.
    """
    check_path(path)
    return Run.open(Path(path).expanduser())
