"""``underhood finetune``: fine-tunes any model on a file of conversations."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.recipes.finetune_spec import FinetuneSpec


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions, FinetuneSpec):
    """Fine-tunes any model on a file of conversations and makes a run of its own.
    Only the answers are learnt. What is interrupted goes on.

    The file is JSON lines, JSON or Parquet in OpenAI's, ShareGPT's or Alpaca's
    form, or prompts with responses.
    """

    FIRST: ClassVar = ("model", "data", "out", "stage", "lora_rank", "epochs", "steps", "minutes", "dtype", "json")
    REST: ClassVar = "Settings of the training"

    model: Positional[str]
    """A run, a Hugging Face folder, a GGUF file, a name like smollm2, or hf:OWNER/NAME."""

    out: Path | None = None
    """Folder of the run to make; runs/MODEL-DATA if left out."""

    json: bool = False
    """Prints one JSON object about the result; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.cli.progress import StageProgress
    from underhood.recipes.finetune import finetune_model
    from underhood.recipes.published_run import model_stem
    from underhood.train.stopping import Interrupted
    from underhood.ui.terminal import console, next_commands, table

    path = args.out or Path("runs") / f"{model_stem(args.model)}-{Path(args.data).stem}"
    screen = console(sys.stderr if args.json else None)
    log, work = finetune_model(args.settings, path)
    try:
        with StageProgress(log, screen):
            done = work()
    except Interrupted as stop:
        print(f"Stopped after step {stop.step:,}; the work so far is kept.", file=sys.stderr)
        print("Go on with the same command.", file=sys.stderr)
        return 130
    if args.json:
        print(json.dumps(asdict(done) | {"path": str(done.path)}))
        return 0
    share = done.trained_parameters / done.parameters
    screen.print(
        f"\nTrained {done.trained_parameters:,} parameters ({share:.1%} of the model's) for {done.steps:,} steps."
    )
    rows = [
        [name, before.loss, done.after[name].loss, f"{before.accuracy:.1%}", f"{done.after[name].accuracy:.1%}"]
        for name, before in done.before.items()
    ]
    if rows:
        screen.print()
        screen.print(table(["held out", "loss before", "after", "right tokens before", "after"], rows))
    next_commands(screen, {f"underhood chat {shlex.quote(str(path))}": "talk with it"})
    return 0
