"""``underhood export``: a model of a run for transformers, vLLM or llama.cpp."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional


@dataclass(frozen=True)
class Args(ModelOptions):
    """Writes a model of a run in a form that other programs open.

    hf makes a folder for transformers and vLLM; gguf makes one file for
    llama.cpp. Both come with a model card, written from what the run recorded.
    """

    run: Positional[Path | None] = None
    """Folder of the run, of one checkpoint in it, or any model; the newest run here if left out."""

    format: Literal["hf", "gguf"] = "hf"
    """Whose form to write."""

    dtype: str | None = None
    """How to store weights: float32, float16, bfloat16; for gguf also q8_0. Left out, hf is float32, gguf float16."""

    stage: str | None = None
    """Which of the run's models; the last one if left out."""

    out: Path | None = None
    """The folder (hf) or file (gguf) to make; RUN/export/… if left out, of a GGUF file or a name export/NAME-…."""

    replace: bool = False
    """Replaces an earlier export at the same place."""


def run(args: Args) -> int:
    from underhood.cli.newest_run import run_or_newest
    from underhood.cli.progress import StageProgress
    from underhood.core.runlog import RunLog
    from underhood.recipes.export.export import export
    from underhood.ui.terminal import console

    model, log = run_or_newest(args.run), RunLog(None)
    wanted = {"dtype": args.dtype, "stage": args.stage, "out": args.out, "replace": args.replace}
    with StageProgress(log, console(sys.stderr)):
        made = export(model, args.format, **wanted, log=log)
    print(made.path)
    return 0
