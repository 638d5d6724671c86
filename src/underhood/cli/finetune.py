"""``underhood finetune``: fine-tunes any model on a file of conversations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from underhood.cli.training_verb import AnyModelOptions, follow_training, trained_line
from underhood.recipes.finetune_spec import FinetuneSpec

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.recipes.finetune import Finetuned


@dataclass(frozen=True, kw_only=True)
class Args(AnyModelOptions, FinetuneSpec):
    """Fine-tunes any model on a file of conversations and makes a run of its own.
    Only the answers are learnt. What is interrupted goes on.

    The file is JSON lines, JSON or Parquet in OpenAI's, ShareGPT's or Alpaca's
    form, or prompts with responses.
    """

    FIRST: ClassVar = ("model", "data", "out", "stage", "lora_rank", "epochs", "steps", "minutes", "dtype", "json")
    REST: ClassVar = "Settings of the training"

    out: Path | None = None
    """Folder of the run to make; runs/MODEL-DATA if left out."""


def run(args: Args) -> int:
    from underhood.recipes.finetune import finetune_model
    from underhood.recipes.published_run import model_stem

    path = args.out or Path("runs") / f"{model_stem(args.model)}-{Path(args.data).stem}"
    return follow_training(*finetune_model(args.settings, path), _show, as_json=args.json)


def _show(screen: Console, done: Finetuned) -> None:
    from underhood.ui.terminal import table

    screen.print(trained_line(done))
    rows = [
        [name, before.loss, done.after[name].loss, f"{before.accuracy:.1%}", f"{done.after[name].accuracy:.1%}"]
        for name, before in done.before.items()
    ]
    if rows:
        screen.print()
        screen.print(table(["held out", "loss before", "after", "right tokens before", "after"], rows))
