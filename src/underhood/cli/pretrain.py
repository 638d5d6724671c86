"""``underhood pretrain``: the base model of a run, and the run itself if there is none."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from underhood.cli.options import Positional
from underhood.recipes.spec import BuildSpec


@dataclass(frozen=True, kw_only=True)
class Args(BuildSpec):
    """Pretrains the base model of a run: next-token prediction on its text.

    If there is no run in RUN yet, one is made: text, tokenizer and plan first,
    as underhood build does. An interrupted pretraining goes on.
    """

    FIRST: ClassVar = ("run", "data", "minutes", "steps", "again", "config", "json")
    REST: ClassVar = "Settings of a new run; the plan chooses what is left out"

    run: Positional[Path]
    """Folder of the run, e.g. runs/NAME."""

    steps: int | None = None
    """Steps in all; a finished model goes on up to these."""

    again: bool = False
    """Starts over, with other settings if any are given."""

    config: Path | None = None
    """A TOML file of these options; what is given here wins over it."""

    json: bool = False
    """Prints one JSON object about the result; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.cli.stage_verb import train

    return train(args.run, "base", again=args.again, steps=args.steps, as_json=args.json, wanted=args.settings)
