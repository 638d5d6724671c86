"""``underhood distill``: teaches a model from another one's probabilities or answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from underhood.cli.options import Positional
from underhood.cli.training_verb import AnyModelOptions, follow_training
from underhood.recipes.finetune_spec import DistillSpec

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.recipes.distill import Distilled


@dataclass(frozen=True, kw_only=True)
class Args(AnyModelOptions, DistillSpec):
    """Distils a teacher into a student (the second model) on conversations, and
    makes a run of its own. What is interrupted goes on.

      --method soft       the teacher's probabilities of the data's answers
      --method sequence   the teacher's own answers, as text: the two models may
                          have different tokenizers
      --method on-policy  the teacher's probabilities of the student's answers

    The file is as for underhood finetune.
    """

    FIRST: ClassVar = (
        *("teacher", "model", "data", "out", "method", "temperature", "divergence", "label_weight"),
        *("lora_rank", "epochs", "steps", "minutes", "json"),
    )
    REST: ClassVar = "Further settings"

    teacher: Positional[str]
    """The teacher: a run, a Hugging Face folder, a GGUF file, a name like smollm2, or hf:OWNER/NAME."""

    model: Positional[str]
    """The student, named likewise."""

    out: Path | None = None
    """Folder of the run to make; runs/STUDENT-from-TEACHER if left out."""


def run(args: Args) -> int:
    from underhood.recipes.distill import distill_model
    from underhood.recipes.published_run import model_stem

    path = args.out or Path("runs") / f"{model_stem(args.model)}-from-{model_stem(args.teacher)}"
    return follow_training(*distill_model(args.settings, path), _show, as_json=args.json)


def _show(screen: Console, done: Distilled) -> None:
    from underhood.ui.terminal import table

    screen.print(
        f"\nThe teacher has {done.teacher_parameters:,} parameters, the student {done.parameters:,}. "
        f"Trained {done.trained_parameters:,} of them for {done.steps:,} steps."
    )
    rows = []
    for name, before in done.before.items():
        teacher = done.teacher.get(name)
        losses = [f"{before.loss:.3f}", f"{done.after[name].loss:.3f}", f"{teacher.loss:.3f}" if teacher else "–"]
        shares = [before.accuracy, done.after[name].accuracy, teacher.accuracy if teacher else None]
        rows.append([name, *losses, *("–" if share is None else f"{share:.1%}" for share in shares)])
    if rows:
        screen.print()
        head = ["held out", "loss before", "after", "teacher", "right tokens before", "after", "teacher"]
        screen.print(table(head, rows))
