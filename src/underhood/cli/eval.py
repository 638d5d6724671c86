"""``underhood eval``: what each model of a run can do, beside simple baselines."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from underhood.cli.options import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """Measures the finished models of a run on text and questions they never saw.

    What has been measured already is shown at once. Given a checkpoint, it
    measures that one and keeps nothing.
    """

    run: Positional[Path]
    """Folder of the run, or of one checkpoint in it."""

    stage: Literal["base", "sft", "dpo"] | None = None
    """Shows one model only."""

    again: bool = False
    """Measures anew."""

    json: bool = False
    """Prints one JSON object; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.cli.results import only, print_table
    from underhood.cli.terminal import StageProgress, console
    from underhood.recipes.run import Run
    from underhood.recipes.stages import evaluate_checkpoint, evaluate_run, locate

    path, checkpoint = locate(args.run)
    opened = Run.open(path)
    out = console(sys.stderr if args.json else None)
    with StageProgress(opened.log, out):
        found = evaluate_checkpoint(opened, checkpoint) if checkpoint else evaluate_run(opened, again=args.again)
    if args.stage is not None:
        found = only(found, args.stage, path)
    if args.json:
        print(json.dumps({"run": str(args.run)} | found.to_json()))
    else:
        print_table(found, out)
    return 0
