"""The models of a run: which stages it has trained, and where the newest checkpoint of each is."""

from __future__ import annotations

import difflib
import json
from pathlib import Path
from typing import Any

from underhood.core.checkpoint import MANIFEST, STEP_NAME, newest
from underhood.core.errors import UserError, nearest
from underhood.infer.model_table import named_models

SNAPSHOTS = "snapshots"
"""Folder of a run with small checkpoints, of weights alone, that show how a model came to be."""

CHECKPOINT_FOLDERS = (SNAPSHOTS, "checkpoints")
"""Where a run's checkpoints are; what a later one holds counts before an earlier one."""

SURELY_MEANT = 0.8
"""Likeness (difflib's ratio) from which a name of the model table is offered before the runs that there are."""


REWARD = "reward"
"""Key of a checkpoint's state that describes the head of a reward model, which scores texts and writes none."""


def stages_of(run: Path) -> list[str]:
    """The models of a run by the name of their checkpoint folders, in order of training: the last one is the best.

    A reward model is left out where there are others, which write text.
    """
    states = states_of(run)
    return [name for name, state in states if REWARD not in state] or [name for name, _ in states]


def states_of(run: Path) -> list[tuple[str, dict[str, Any]]]:
    """The models of a run in order of training, each with the state of its newest checkpoint."""
    folder = run / "checkpoints"
    newest_of = {path.name: newest(path) for path in folder.iterdir()} if folder.is_dir() else {}
    states = [(name, _read_state(path)) for name, path in sorted(newest_of.items()) if path is not None]
    return sorted(states, key=lambda named: named[1].get("order", -1))


def _read_state(checkpoint: Path) -> dict[str, Any]:
    """The state of a checkpoint without its checksums; empty if it is damaged, which `load` explains."""
    try:
        return json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def steps_on_disk(run: Path, model: str) -> dict[int, Path]:
    """The checkpoints of a run's model by step, snapshots among them."""
    return {
        int(match[1]): path
        for kind in CHECKPOINT_FOLDERS
        for path in (run / kind / model).glob("step-*")
        if (match := STEP_NAME.fullmatch(path.name)) and (path / MANIFEST).is_file()
    }


def find_stage(folder: Path, stage: str | None) -> tuple[str, Path]:
    """The stage and its newest checkpoint."""
    have = [name for name, _ in states_of(folder)]
    if not have:
        if folder.is_dir() and ((folder / "run.toml").exists() or (folder / "checkpoints").is_dir()):
            raise UserError(
                f"the run {folder} has no model yet", fix=f"Go on with underhood build --out {folder} --resume"
            )
        raise UserError(f"there is no run at {folder}", fix=_others(folder))
    if stage is None:
        stage = stages_of(folder)[-1]
    elif stage not in have:
        near = nearest(stage, have)
        hint = f"Did you mean {near}?" if near else None
        raise UserError(f"{folder} has no {stage} model", expected=" or ".join(have), fix=hint)
    path = newest(folder / "checkpoints" / stage)
    assert path is not None
    return stage, path


def _others(folder: Path) -> str:
    """What might have been meant instead of a folder that is not a run."""
    if near := difflib.get_close_matches(folder.as_posix(), named_models(), n=1, cutoff=SURELY_MEANT):
        return f"Did you mean {near[0]}?"
    for parent in (folder.parent, Path("runs")):
        runs = [path for path in sorted(parent.iterdir()) if stages_of(path)] if parent.is_dir() else []
        if runs:
            by_name = {path.name: path for path in runs}
            near = nearest(folder.name, by_name)
            if near:
                return f"Did you mean {by_name[near]}?"
            return f"There are {', '.join(str(path) for path in runs[:8])}"
    return "Make one with underhood build"
