"""The command of a training stage (``underhood pretrain``, …): its options, its progress, and how it ended."""

from __future__ import annotations

import json
import shlex
import sys
import typing
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields, make_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

from underhood.cli.field_docs import field_docs
from underhood.cli.options import Positional
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.registry import Stage, all_stages, stage_of_model


@dataclass(frozen=True, kw_only=True)
class StageArgs:
    """Options that every stage has."""

    run: Positional[Path]
    """Folder of the run, or of a checkpoint of an earlier model to start from."""

    restart: bool = False
    """Starts over, with other settings if any are given."""

    parallel: Literal["ddp", "fsdp"] = "ddp"
    """With torchrun: every process holds the whole model (ddp) or a part of it (fsdp)."""

    json: bool = False
    """Prints one JSON object about the result; progress goes to standard error."""


@dataclass(frozen=True, kw_only=True)
class FirstStageArgs(StageArgs, BuildSpec):
    """Options of a stage that can make the run itself."""

    FIRST: ClassVar = ("run", "data", "text_field", "minutes", "steps", "restart", "config", "json")
    REST: ClassVar = "Settings of a new run; the plan chooses what is left out"

    config: Path | None = None
    """A TOML file of these options; what is given here wins over it."""


@dataclass(frozen=True, kw_only=True)
class FeedbackArgs(StageArgs):
    """Options of a stage that learns from feedback."""

    feedback: Path | None = None
    """A file of feedback that underhood serve has kept, e.g. RUN/feedback.db."""


def args_of(stage: Stage) -> type[StageArgs]:
    """The options of the stage's command: those of all stages, and its own settings where they are given."""
    base = FirstStageArgs if stage.starts_from is None else FeedbackArgs if stage.takes_feedback else StageArgs
    hints = typing.get_type_hints(stage.settings)
    own = [(each.name, hints[each.name] | None, None) for each in fields(stage.settings)]
    docs = "".join(f"    {name}: {text}\n" for name, text in field_docs(stage.settings).items())
    docs = f"Settings of a stage.\n\nAttributes:\n{docs}"
    mixin = make_dataclass("Settings", own, frozen=True, kw_only=True, namespace={"__doc__": docs})
    namespace = {"__doc__": stage.help, "__annotations__": {}}
    return cast(type[StageArgs], dataclass(frozen=True, kw_only=True)(type("Args", (mixin, base), namespace)))


def run_stage_command(stage: Stage, args: Any) -> int:
    """Runs one stage and prints what it did; returns the exit code."""
    settings = {each.name: value for each in fields(stage.settings) if (value := getattr(args, each.name)) is not None}
    try:
        stage.settings(**settings)
    except ValueError as error:
        raise UserError(f"underhood {stage.name}: {error}") from error
    steps = settings.pop("steps", None)
    from underhood.cli.progress import StageProgress
    from underhood.recipes.published_run import refuse_without_file
    from underhood.recipes.run import Run
    from underhood.recipes.stage_jobs import few_steps_warning, locate, open_or_create, run_stage, steps_of
    from underhood.train.distributed import first_rank_first, process_group, rank_and_size
    from underhood.train.stopping import Interrupted
    from underhood.ui.terminal import console

    path, start = locate(args.run)
    refuse_without_file(path, stage.name, stage.any_model)

    def open_run() -> Run:
        """The run, with the settings that were given; what the first process has made is only read by the others."""
        if rank_and_size()[0] > 0:
            return replace(Run.open(path, write=False), log=RunLog(None))
        run = open_or_create(path, args.settings, restart=args.restart) if stage.starts_from is None else Run.open(path)
        existing = run.spec.stage_settings(stage)
        changes = {name: value for name, value in settings.items() if value != getattr(existing, name)}
        if changes:
            if steps_of(run, stage) and not args.restart:
                name = next(iter(changes)).replace("_", "-")
                raise UserError(
                    f"the {stage.model} model was trained with another {name}", fix="Give --restart to start anew"
                )
            run = run.update(**{f"{stage.name}_{name}": value for name, value in changes.items()})
        return run

    out = console(sys.stderr if args.json else None)
    feedback = getattr(args, "feedback", None)
    options = {"restart": args.restart, "steps": steps, "start": start, "feedback": feedback, "parallel": args.parallel}
    rank = 0
    try:
        with process_group() as (rank, _):
            run = first_rank_first(open_run)
            with StageProgress(run.log, out) if rank == 0 else nullcontext():
                done = run_stage(run, stage, **options)
    except Interrupted as stop:
        if rank > 0:
            return 130
        print(f"Stopped after step {stop.step:,}; the work so far is kept.", file=sys.stderr)
        print(f"Go on with: underhood {stage.name} {shlex.quote(str(args.run))}", file=sys.stderr)
        return 130
    if rank > 0:
        return 0
    if args.json:
        print(json.dumps(asdict(done) | {"run": str(done.run), "checkpoint": str(done.checkpoint)}))
        return 0
    if done.before == done.steps:
        out.print(
            f"The {stage.model} model is finished: {done.steps:,} steps. --steps N goes on, --restart starts over."
        )
    if steps is None and (warning := few_steps_warning(run, stage)):
        out.print(f"\n{warning}", style="bold")
    for model in done.forgotten:
        verb = stage_of_model(model).name
        out.print(f"Removed the {model} model: it came from an earlier {stage.model}. Make it by underhood {verb}.")
    _suggest(out, path, stage)
    return 0


def _suggest(out: Any, path: Path, stage: Stage) -> None:
    """What one would type next."""
    from underhood.recipes.run import Run
    from underhood.ui.terminal import next_commands

    run = shlex.quote(str(path))
    plan = Run.open(path).plan
    later = [other for other in all_stages() if other.starts_from == stage.model and plan and plan.find(other.name)]
    commands = {f"underhood {other.name} {run}": f"go on: the model {other.purpose}" for other in later}
    talk = (f"{'chat' if stage.chats else 'generate'} {run}", "try it")
    use, why = (f"ppo {run} --reward model", "learn from its scores") if stage.scores else talk
    next_commands(out, commands | {f"underhood eval {run}": "measure it", f"underhood {use}": why})
