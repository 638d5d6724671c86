"""``underhood dpo``: aligns the fine-tuned model of a run with preferences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from underhood.cli.options import Positional


@dataclass(frozen=True, kw_only=True)
class Args:
    """Aligns the fine-tuned model of a run with preferences: direct preference
    optimisation on pairs of a better and a worse answer.

    An interrupted alignment goes on. With --feedback, what people said about
    answers is half of what is learnt: edited answers are preferred to the
    originals, answers with thumbs up to those with thumbs down.
    """

    run: Positional[Path]
    """Folder of the run, or of a checkpoint of its base or sft model to start from."""

    steps: int | None = None
    """Steps in all; a finished model goes on up to these."""

    again: bool = False
    """Starts over from the model before."""

    lr_scale: float | None = None
    """Learning rates of alignment as a share of pretraining's."""

    beta: float | None = None
    """How strongly the model is held to what it was before."""

    feedback: Path | None = None
    """A file of feedback that underhood serve has kept, e.g. RUN/feedback.db."""

    json: bool = False
    """Prints one JSON object about the result; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.cli.stage_verb import train

    changes = {"dpo_lr_scale": args.lr_scale, "beta": args.beta}
    return train(
        args.run,
        "dpo",
        again=args.again,
        steps=args.steps,
        as_json=args.json,
        changes=changes,
        feedback=args.feedback,
    )
