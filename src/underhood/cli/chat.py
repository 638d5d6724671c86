"""``underhood chat``: talks with the model of a run, in a terminal or through a pipe."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from underhood.cli.chat_loop import Chat
from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.cli.retrieval_options import RetrievalOptions
from underhood.cli.sampling_options import SamplingOptions


@dataclass(frozen=True, kw_only=True)
class Args(ModelOptions, RetrievalOptions, SamplingOptions):
    """Talks with the model of a run.

    In a terminal, Ctrl-C stops an answer and Ctrl-D leaves; /help lists the commands. From a pipe, every line is one
    turn and only the answers are printed. With an index, answers come from its documents and cite them as [1].
    """

    run: Positional[Path | None] = None
    """Folder of the run, e.g. runs/NAME, or of one checkpoint in it; the newest run here if left out."""

    stage: str | None = None
    """Which of the run's models; the last one if left out."""

    system: str | None = None
    """A system message, which comes before the conversation."""

    max_tokens: int = 256
    """How many tokens an answer may have."""


def run(args: Args) -> int:
    from underhood.cli.model_loading import open_for_writing
    from underhood.cli.newest_run import run_or_newest

    loaded = open_for_writing(run_or_newest(args.run), args.stage)
    chat = Chat(loaded, args, interactive=sys.stdin.isatty() and sys.stdout.isatty())
    chat.greet()
    for line in chat.lines():
        if not chat.turn(line):
            break
    return 0
