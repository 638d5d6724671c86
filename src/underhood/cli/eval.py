"""``underhood eval``: what each model of a run can do, beside simple baselines; or any model on published test sets."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions):
    """Measures the finished models of a run on text and questions they never saw.

    What has been measured already is shown at once. Given a checkpoint, it
    measures that one and keeps nothing.

    With --tasks it scores any model (a run's last one, or a Hugging Face
    folder) on published test sets: arc_easy, hellaswag, piqa, winogrande,
    boolq, lambada, gsm8k.

    With --text, and for a model that was not built here, it gives the bits per
    byte on plain text, which compares models of different tokenizers.
    """

    run: Positional[Path | None] = None
    """Folder of the run, or of one checkpoint in it; or any model. The newest run here if left out."""

    text: str | None = None
    """Text for bits per byte: a file, a folder or a data set; for a model not built here the default corpus's held-out
    part, if left out."""

    text_field: str | None = None
    """With --text: field (JSONL) or column (CSV, TSV, Parquet) that holds the text."""

    max_bytes: int | None = None
    """With --text: stops after so many bytes."""

    tasks: str | None = None
    """Names of test sets, with commas between them."""

    task_data: tuple[Path, ...] = ()
    """With --tasks: folders with the sets' .jsonl files; the Hugging Face Hub if left out."""

    limit: int | None = None
    """With --tasks: only the first so many questions of each set."""

    shots: int | None = None
    """With --tasks: worked examples in front of each question; 5 for gsm8k, else 0, if left out."""

    stage: str | None = None
    """Shows one model only."""

    restart: bool = False
    """Measures anew."""

    json: bool = False
    """Prints one JSON object; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.cli.newest_run import run_or_newest

    model = run_or_newest(args.run)
    if args.tasks is not None:
        from underhood.cli.score import score_tasks

        return score_tasks(
            model,
            args.tasks,
            stage=args.stage,
            task_data=args.task_data,
            limit=args.limit,
            shots=args.shots,
            as_json=args.json,
        )
    if args.task_data or args.limit is not None or args.shots is not None:
        raise UserError("--task-data, --limit and --shots are for test sets", fix="Name the sets with --tasks")
    if args.text is not None or not _built_here(model):
        from underhood.cli.text_bits import measure_text

        return measure_text(
            model,
            args.text,
            text_field=args.text_field,
            stage=args.stage,
            max_bytes=args.max_bytes,
            as_json=args.json,
        )
    if args.max_bytes is not None or args.text_field is not None:
        raise UserError("--max-bytes and --text-field are for bits per byte on a text", fix="Name it with --text")
    from underhood.cli.progress import StageProgress
    from underhood.cli.results import only, print_table
    from underhood.recipes.evaluate_run import evaluate_checkpoint, evaluate_run
    from underhood.recipes.run import Run
    from underhood.recipes.stage_jobs import locate
    from underhood.ui.terminal import console

    path, checkpoint = locate(model)
    opened = Run.open(path, write=checkpoint is None)
    out = console(sys.stderr if args.json else None)
    with StageProgress(opened.log, out):
        results = evaluate_checkpoint(opened, checkpoint) if checkpoint else evaluate_run(opened, restart=args.restart)
    if args.stage is not None:
        results = only(results, args.stage, path)
    if args.json:
        print(json.dumps({"run": str(model)} | results.to_json()))
    else:
        print_table(results, out)
    return 0


def _built_here(path: Path) -> bool:
    """Whether a path names a run of ours, or nothing, which the evaluation of runs explains."""
    from underhood.recipes.stage_jobs import locate

    run = locate(path)[0]
    if (run / "run.toml").exists():
        return True
    from underhood.infer.fetch import fetch

    return not fetch(path).exists()
