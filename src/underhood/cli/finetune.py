"""What ``underhood sft --model MODEL --data FILE`` does: fine-tuning any model on a file of conversations."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from underhood.recipes.finetune import Finetuned, FinetuneSpec


def train(spec: FinetuneSpec, out: Path | None, *, as_json: bool) -> int:
    """Fine-tunes and prints what it did; returns the exit code."""
    from underhood.cli.progress import StageProgress
    from underhood.recipes.finetune import finetune_model
    from underhood.train.loop import Interrupted
    from underhood.ui.terminal import console

    path = out or Path("runs") / f"{Path(spec.model).resolve().name}-{Path(spec.data).stem}"
    screen = console(sys.stderr if as_json else None)
    log, work = finetune_model(spec, path)
    try:
        with StageProgress(log, screen):
            done: Finetuned = work()
    except Interrupted as stop:
        print(f"Stopped after step {stop.step:,}; the work so far is kept.", file=sys.stderr)
        print("Go on with the same command.", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(asdict(done) | {"path": str(done.path)}))
        return 0
    from underhood.ui.terminal import next_commands, table

    share = done.trained_parameters / done.parameters
    screen.print(
        f"\nTrained {done.trained_parameters:,} numbers ({share:.1%} of the model's) for {done.steps:,} steps."
    )
    rows = [
        [name, one.loss, done.after[name].loss, f"{one.accuracy:.1%}", f"{done.after[name].accuracy:.1%}"]
        for name, one in done.before.items()
    ]
    if rows:
        screen.print()
        screen.print(table(["held out", "loss before", "after", "right tokens before", "after"], rows))
    run = shlex.quote(str(path))
    next_commands(screen, {f"underhood chat {run}": "talk with it"})
    return 0
