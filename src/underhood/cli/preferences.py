"""``underhood dpo MODEL --data FILE``: aligns any model with preferences of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from underhood.cli.training_verb import AnyModelOptions, follow_training, trained_line
from underhood.recipes.finetune_spec import PreferenceSpec

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.recipes.judged_training import TunedOnJudgements


@dataclass(frozen=True, kw_only=True)
class Args(AnyModelOptions, PreferenceSpec):
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

    out: Path | None = None
    """Folder of the run to make; runs/MODEL-LOSS-DATA if left out."""


def run(args: Args) -> int:
    from underhood.recipes.preference_tuning import align_model
    from underhood.recipes.published_run import model_stem

    path = args.out or Path("runs") / f"{model_stem(args.model)}-{args.loss}-{Path(args.data).stem}"
    return follow_training(*align_model(args.settings, path), show_judged, as_json=args.json)


def show_judged(screen: Console, done: TunedOnJudgements) -> None:
    """Prints what came out of a training on judged answers."""
    from underhood.ui.terminal import table

    screen.print(trained_line(done))
    rows = [[name, *_figures(before), *_figures(done.after[name])] for name, before in done.before.items()]
    if rows:
        screen.print()
        head = ["held out", "right before", "loss", "margin", "right after", "loss", "margin"]
        screen.print(table(head, rows))


def _figures(means: dict[str, float]) -> list[str]:
    """Accuracy, loss and margin as text."""
    margin = means.get("reward_margin")
    return [f"{means['preference_accuracy']:.1%}", f"{means['loss']:.3f}", "–" if margin is None else f"{margin:.3f}"]
