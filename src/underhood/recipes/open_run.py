"""Opening a run from Python: ``underhood.open_run("runs/NAME")``."""

from __future__ import annotations

from pathlib import Path

from underhood.infer.arguments import check_path
from underhood.recipes.finetuned_run import FinetunedRun
from underhood.recipes.published_run import is_finetuned
from underhood.recipes.run import Run


def open_run(path: str | Path) -> Run | FinetunedRun:
    """The run in a folder: its settings, its models and its training curves, also while it is being made.

    A run of ``underhood finetune`` or ``classify`` has no stages of a build, and so a class of its own.

    Raises:
        UserError: there is no run (the nearest others are named), or its settings are damaged.
    """
    check_path(path)
    folder = Path(path).expanduser()
    return FinetunedRun.open(folder) if is_finetuned(folder) else Run.open(folder)
