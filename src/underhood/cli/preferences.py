"""``underhood dpo MODEL --data FILE``: aligns any model with preferences of a file."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.recipes.finetune_spec import PreferenceSpec

if TYPE_CHECKING:
    from underhood.recipes.judged_training import TunedOnJudgements


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions, PreferenceSpec):
    """Aligns any model with preferences of a file and makes a run of its own.
    (Without --data, underhood dpo RUN is a stage of a run of underhood build.)
    What is interrupted goes on.

    The file is JSON lines, JSON or Parquet. Each record has a prompt (a text or
    messages) and

      chosen, rejected      two answers, the better one first
      answers, ranking      several answers and the rank of each, 1 being best
      completion, label     one answer, good or bad: for --loss kto
    """

    FIRST: ClassVar = (
        *("model", "data", "out", "loss", "beta", "gamma", "label_noise", "lora_rank", "epochs", "steps", "minutes"),
        *("lr", "json"),
    )
    REST: ClassVar = "Further settings"

    model: Positional[str]
    """A run, a Hugging Face folder, a GGUF file, a name like smollm2, or hf:OWNER/NAME."""

    out: Path | None = None
    """Folder of the run to make; runs/MODEL-LOSS-DATA if left out."""

    json: bool = False
    """Prints one JSON object about the result; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.recipes.preference_tuning import align_model
    from underhood.recipes.published_run import model_stem

    path = args.out or Path("runs") / f"{model_stem(args.model)}-{args.loss}-{Path(args.data).stem}"
    return finish(*align_model(args.settings, path), as_json=args.json, next_command="chat RUN", about="talk with it")


def finish(log: Any, work: Any, *, as_json: bool, next_command: str, about: str) -> int:
    """Does the work of a training on judged answers and prints what came out; returns the exit code."""
    from underhood.cli.progress import StageProgress
    from underhood.train.stopping import Interrupted
    from underhood.ui.terminal import console, next_commands, table

    screen = console(sys.stderr if as_json else None)
    try:
        with StageProgress(log, screen):
            done: TunedOnJudgements = work()
    except Interrupted as stop:
        print(f"Stopped after step {stop.step:,}; the work so far is kept.", file=sys.stderr)
        print("Go on with the same command.", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(asdict(done) | {"path": str(done.path)}))
        return 0
    share = done.trained_parameters / done.parameters
    screen.print(
        f"\nTrained {done.trained_parameters:,} parameters ({share:.1%} of the model's) for {done.steps:,} steps."
    )
    rows = [[name, *_figures(before), *_figures(done.after[name])] for name, before in done.before.items()]
    if rows:
        screen.print()
        head = ["held out", "right before", "loss", "margin", "right after", "loss", "margin"]
        screen.print(table(head, rows))
    next_commands(screen, {f"underhood {next_command.replace('RUN', shlex.quote(str(done.path)))}": about})
    return 0


def _figures(means: dict[str, float]) -> list[str]:
    """Accuracy, loss and margin as text."""
    margin = means.get("reward_margin")
    return [f"{means['preference_accuracy']:.1%}", f"{means['loss']:.3f}", "–" if margin is None else f"{margin:.3f}"]
