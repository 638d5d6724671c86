"""``underhood classify``: teaches a model to label texts, and labels texts with it."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.core.errors import UserError
from underhood.core.text_files import read_standard_input
from underhood.recipes.finetune_spec import ClassifySpec

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.recipes.classification import Classified


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions, ClassifySpec):
    """Teaches a model to label texts from examples in --data, and says how well
    it does beside a bag of words; or labels texts with a model so taught.

    A file of examples is TSV, CSV, JSON lines or Parquet with a text and a label,
    or with two texts and a label: then --second-column names the second text.
    """

    model: Positional[str]
    """Folder of a run or a model; to label texts, of a classifier."""

    data: tuple[str, ...] = ()
    """Files of examples to learn from."""

    text: tuple[str, ...] = ()
    """Texts to label, the two of a pair with a tab between; standard input, line by line, if neither these nor
    --data are given."""

    out: Path | None = None
    """Folder of the classifier; runs/MODEL-DATA if left out."""

    json: bool = False
    """Prints JSON instead of a table."""

    def __post_init__(self):
        if self.data:
            super().__post_init__()


def run(args: Args) -> int:
    if args.data and args.text:
        raise UserError("--data teaches and --text asks", fix="Give one of them")
    return _teach(args) if args.data else _label(args)


def _teach(args: Args) -> int:
    from underhood.cli.training_verb import follow_training
    from underhood.recipes.classification import classify_model
    from underhood.recipes.published_run import model_stem

    out = args.out or Path("runs") / f"{model_stem(args.model)}-{Path(args.data[0]).stem}"
    ending = {"command": 'classify RUN --text "…"', "about": "label a text with it"}
    return follow_training(*classify_model(args.settings, out), _show, as_json=args.json, **ending)


def _show(screen: Console, done: Classified) -> None:
    from underhood.ui.terminal import table

    rows = [
        [row.name, f"{row.accuracy:.1%}", f"{row.low:.1%} to {row.high:.1%}", f"{row.parameters:,}"]
        for row in done.rows
    ]
    screen.print(f"\n{done.tested_on:,} held-out texts; learnt from {done.learnt_from:,}.")
    screen.print(table(["", "right", "95 % interval", "numbers learnt"], rows))
    for note in done.notes:
        screen.print(note + ".")


def _label(args: Args) -> int:
    from underhood.infer.stages import find_stage
    from underhood.recipes.classification import is_classifier, load_classifier
    from underhood.recipes.published_run import names_published

    if not is_classifier(Path(args.model)):
        if not names_published(Path(args.model)):
            find_stage(Path(args.model), args.stage)  # says that nothing is there
        raise UserError(f"{args.model} is not a classifier", fix="Give --data FILE with labelled texts to teach it")
    texts = list(args.text)
    if not texts:
        if sys.stdin.isatty():
            raise UserError("there is nothing to label", fix="Give --text, or pipe texts in, one to a line")
        texts = [line for line in read_standard_input().splitlines() if line.strip()]
    from underhood.cli.progress import StageProgress
    from underhood.core.runlog import RunLog
    from underhood.ui.terminal import console

    log = RunLog(None)
    with StageProgress(log, console(sys.stderr)):
        answers = load_classifier(Path(args.model)).predict(texts, log.counter("classify", "labelling", "texts"))
    for text, probabilities in zip(texts, answers, strict=True):
        best = max(probabilities, key=probabilities.__getitem__)
        if args.json:
            print(json.dumps({"text": text, "label": best, "probabilities": probabilities}, ensure_ascii=False))
        else:
            print(f"{best}\t{probabilities[best]:.3f}\t{text}")
    return 0
