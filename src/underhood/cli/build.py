"""``underhood build``: text in, a model that answers out."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from underhood.core.errors import UserError
from underhood.recipes.spec import BuildSpec


@dataclass(frozen=True, kw_only=True)
class Args(BuildSpec):
    """Builds a language model from text: tokenizer, pretraining, fine-tuning,
    alignment, evaluation and a report, all within --minutes.

    Without --data it reads the documentation of this Python installation.
    A stopped build goes on with --resume.
    """

    out: Path | None = None
    """Folder of the run; runs/NAME after the data if left out."""

    config: Path | None = None
    """A TOML file of these options; what is given here wins over it."""

    resume: bool = False
    """Goes on with the run in --out."""

    chat: bool = False
    """Talks with the model as soon as it is done."""


def run(args: Args) -> int:
    from underhood.cli.terminal import StageProgress, console, human_time, next_commands
    from underhood.recipes.run import Run

    path = args.out or Path("runs") / default_name(args.data)
    if args.resume:
        opened = Run.open(path)
    else:
        opened = Run.create(path, BuildSpec(**{field.name: getattr(args, field.name) for field in fields(BuildSpec)}))

    from underhood.cli.results import print_results
    from underhood.recipes.build import build
    from underhood.recipes.report.page import write_report
    from underhood.train.loop import Interrupted

    out = console()
    try:
        with StageProgress(opened.log, out):
            build(opened, report=lambda made: write_report(made.path), command=command_line())
    except Interrupted as stop:
        print(f"Stopped in {stop.stage} after step {stop.step:,}; the work so far is kept.", file=sys.stderr)
        print(f"Go on with: underhood build --out {shlex.quote(str(path))} --resume", file=sys.stderr)
        return 130
    summary = opened.note("summary")
    assert summary is not None
    out.print()
    print_results(opened, out)
    out.print(f"\nDone in {human_time(summary['seconds'])}; peak memory {summary['peak_memory_gb']:.1f} GB.")
    quoted = shlex.quote(str(path))
    next_commands(
        out,
        {
            f"underhood chat {quoted}": "talk with it",
            f"open {shlex.quote(str(path / 'report.html'))}": "see what each stage did",
        },
    )
    if args.chat:
        from underhood.cli import chat

        return chat.run(chat.Args(run=path))
    return 0


def default_name(data: str) -> str:
    """The run's name when none is given: after the data."""
    if data.startswith("hf:"):
        data = data[3:].split(":")[0]
    name = Path(data).stem or Path(data).resolve().name
    if not name:
        raise UserError(f"can't name a run after {data!r}", fix="Give one by --out runs/NAME")
    return name


def command_line() -> str:
    """The command as the user typed it."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
