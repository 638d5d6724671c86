"""What the verbs ``pretrain``, ``sft`` and ``dpo`` share: one stage of a run, its progress, and how it ended."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.recipes.spec import BuildSpec


def train(
    place: Path,
    model: str,
    *,
    again: bool,
    steps: int | None,
    as_json: bool,
    wanted: BuildSpec | None = None,
    changes: Mapping[str, Any] | None = None,
    feedback: Path | None = None,
) -> int:
    """Runs one stage and prints what it did; returns the exit code.

    Args:
        place: a run, or one of its checkpoints to start from.
        wanted: settings to make the run by if there is none (`pretrain` only).
        changes: settings of this stage to change in the run; None values are left as they are.
        feedback: what people said about answers (`dpo` only).
    """
    if steps is not None and steps < 1:
        raise UserError("--steps is out of range", expected="a whole number from 1 up", got=str(steps))
    from underhood.cli.progress import StageProgress
    from underhood.recipes.run import STAGE_OF, Run
    from underhood.recipes.stages import locate, open_or_create, run_stage, steps_of
    from underhood.train.loop import Interrupted
    from underhood.ui.terminal import console

    path, start = locate(place)
    run = open_or_create(path, wanted, again=again) if wanted is not None else Run.open(path)
    given = {name: value for name, value in (changes or {}).items() if value not in (None, getattr(run.spec, name))}
    if given:
        if steps_of(run, model) and not again:
            name = next(iter(given)).replace("_", "-")
            raise UserError(f"the {model} model was trained with another {name}", fix="Give --again to start anew")
        run = run.update(**given)
    verb = STAGE_OF[model]
    out = console(sys.stderr if as_json else None)
    try:
        with StageProgress(run.log, out):
            done = run_stage(run, model, again=again, steps=steps, start=start, feedback=feedback)
    except Interrupted as stop:
        print(f"Stopped after step {stop.step:,}; the work so far is kept.", file=sys.stderr)
        print(f"Go on with: underhood {verb} {shlex.quote(str(place))}", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(asdict(done) | {"run": str(done.run), "checkpoint": str(done.checkpoint)}))
        return 0
    if done.before == done.steps:
        out.print(f"The {model} model is finished: {done.steps:,} steps. --steps N goes on, --again starts over.")
    for name in done.forgotten:
        out.print(f"Removed the {name} model: it came from an earlier {model}. Make it by underhood {STAGE_OF[name]}.")
    _next(out, path, model)
    return 0


def _next(out: Any, path: Path, model: str) -> None:
    from underhood.ui.terminal import next_commands

    run = shlex.quote(str(path))
    later = {"base": ("sft", "teach it to answer"), "sft": ("dpo", "align it with preferences")}
    commands = {f"underhood {later[model][0]} {run}": later[model][1]} if model in later else {}
    talk = "generate" if model == "base" else "chat"
    next_commands(out, commands | {f"underhood eval {run}": "measure it", f"underhood {talk} {run}": "try it"})
