"""``underhood build``: text in, a model that answers out."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from underhood.core.errors import UserError
from underhood.recipes.spec import BuildSpec

if TYPE_CHECKING:
    from underhood.recipes.run import Run


@dataclass(frozen=True, kw_only=True)
class Args(BuildSpec):
    """Builds a language model from text: tokenizer, pretraining, fine-tuning,
    alignment, evaluation and a report, all within --minutes. With --from it
    fine-tunes a given model on questions about the text instead.

    Without --data it reads the documentation of this Python installation.
    A stopped build goes on with --resume.
    """

    FIRST: ClassVar = (
        "data",
        "text_field",
        "from_",
        "minutes",
        "out",
        "chat",
        "resume",
        "config",
        "json",
        "seed",
        "device",
    )
    REST: ClassVar = "Settings of the recipe; the plan chooses what is left out"

    out: Path | None = None
    """Folder of the run; runs/NAME after the data if left out."""

    config: Path | None = None
    """A TOML file of these options; what is given here wins over it."""

    resume: bool = False
    """Goes on with the run in --out."""

    chat: bool = False
    """Talks with the model as soon as it is done."""

    json: bool = False
    """Prints the summary as one JSON object; progress goes to standard error."""


def run(args: Args) -> int:
    from underhood.cli.progress import StageProgress
    from underhood.recipes.run import Run
    from underhood.ui.formatting import duration
    from underhood.ui.terminal import console, next_commands

    if args.json and args.chat:
        raise UserError("--json prints one object and --chat talks", fix="Leave out one of them")
    path = args.out or Path("runs") / default_name(args.data, args.from_)
    quoted = shlex.quote(str(path))
    opened = resumed(path, args) if args.resume else Run.create(path, args.settings)

    from underhood.cli.results import print_examples, print_results
    from underhood.recipes.build import build
    from underhood.recipes.report.page import write_report
    from underhood.train.stopping import Interrupted

    out = console(sys.stderr if args.json else None)
    try:
        with StageProgress(opened.log, out):
            build(opened, report=lambda made: write_report(made.path), command=command_for(opened))
    except (Interrupted, KeyboardInterrupt) as stop:
        where = f" in {stop.stage} after step {stop.step:,}" if isinstance(stop, Interrupted) else ""
        print(f"Stopped{where}; the work so far is kept.", file=sys.stderr)
        print(f"Go on with: underhood build --out {quoted} --resume", file=sys.stderr)
        return 130
    summary = opened.note("summary")
    assert summary is not None
    if args.json:
        print(json.dumps(summary, ensure_ascii=False))
        return 0
    out.print()
    print_results(opened, out)
    out.print(f"\nDone in {duration(summary['seconds'], ' ')}; peak memory {summary['peak_memory_gb']:.1f} GB.")
    print_examples(summary["examples"], summary["refused"], out)
    for warning in summary["warnings"]:
        out.print(f"\n{warning}", style="bold")
    next_commands(
        out,
        {
            f"underhood chat {quoted}": "talk with it",
            f"underhood report {quoted} --open": "see what each stage did",
        },
    )
    if args.chat:
        from underhood.cli import chat

        return chat.run(chat.Args(run=path))
    return 0


def resumed(path: Path, args: Args) -> Run:
    """The run in `path`, to go on with as it was begun.

    Raises:
        UserError: there is none, or other settings are asked for than it was begun with.
    """
    from underhood.recipes.run import Run, differences

    run = Run.open(path)
    for name, value in differences(run, args.settings).items():
        raise UserError(
            f"{path} was begun with {name.rstrip('_').replace('_', '-')} {run.spec.flat()[name]}",
            got=str(value),
            fix="Leave it out to go on, or begin another run",
        )
    return run


def default_name(data: str, start: str | None = None) -> str:
    """The run's name when none is given: after the data, and the model that it starts from."""
    if start is not None:
        return f"{default_name(start)}-{default_name(data)}"
    if data.startswith("hf:"):
        data = data[3:].split(":")[0]
    name = Path(data).stem or Path(data).resolve().name
    if not name:
        raise UserError(f"can't name a run after {data!r}", fix="Give one by --out runs/NAME")
    return name


def command_for(run: Run) -> str:
    """The command that makes such a run from nothing, however this one was come by (a file of options, a resume)."""
    words, default = ["underhood", "build"], BuildSpec().flat()
    for name, value in run.spec.flat().items():
        flag = "--" + name.rstrip("_").replace("_", "-")
        if name == "minutes" or value != default[name]:
            off = f"--no-{flag[2:]}"
            given = f"{value:g}" if type(value) is float else str(value)
            words += [flag if value else off] if isinstance(value, bool) else [flag, given]
    return shlex.join([*words, "--out", str(run.path)])
