"""Commands that train a given model into a run of its own: their common options, progress, and how they ended."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.core.runlog import RunLog


@dataclass(frozen=True, kw_only=True)
class AnyModelOptions(ModelOptions):
    """Options of a command that works with any model."""

    model: Positional[str]
    """A run, a Hugging Face folder, a GGUF file, a name like smollm2, or hf:OWNER/NAME."""

    json: bool = False
    """Prints one JSON object about the result; progress goes to standard error."""


def follow_training(
    log: RunLog,
    work: Callable[[], Any],
    show: Callable[[Console, Any], None],
    *,
    as_json: bool,
    command: str = "chat RUN",
    about: str = "talk with it",
) -> int:
    """Does the work of a training while its log is shown, and tells what came out; returns the exit code.

    Args:
        work: gives a dataclass with the `path` of the run.
        show: prints it for people.
        command, about: what one would type next, with RUN for the path, and what for.
    """
    from underhood.cli.progress import StageProgress
    from underhood.train.stopping import Interrupted
    from underhood.ui.terminal import console, next_commands

    screen = console(sys.stderr if as_json else None)
    try:
        with StageProgress(log, screen):
            done = work()
    except Interrupted as stop:
        print(f"Stopped after step {stop.step:,}; the work so far is kept.", file=sys.stderr)
        print("Go on with the same command.", file=sys.stderr)
        return 130
    if as_json:
        print(json.dumps(asdict(done) | {"path": str(done.path)}, ensure_ascii=False))
        return 0
    show(screen, done)
    next_commands(screen, {f"underhood {command.replace('RUN', shlex.quote(str(done.path)))}": about})
    return 0


def trained_line(done: Any, steps: str = "for {:,} steps") -> str:
    """How many parameters learnt, and for how long."""
    share, count = done.trained_parameters / done.parameters, steps.format(done.steps)
    return f"\nTrained {done.trained_parameters:,} parameters ({share:.1%} of the model's) {count}."
