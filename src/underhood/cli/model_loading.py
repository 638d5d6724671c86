"""Opening a model with something to look at: the weights of a large one take a while to read."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.ui.terminal import console

if TYPE_CHECKING:
    import torch

    from underhood.infer.load import LoadedModel


def open_model(run: str | Path, stage: str | None = None, *, keep_type: bool = False) -> LoadedModel:
    """What `underhood.load` gives, with a bar on standard error while the weights of a published model are read.

    Args:
        keep_type: keeps the type that its weights have on disk, instead of float32.

    Raises:
        UserError: as `underhood.load`.
    """
    import torch

    from underhood.infer.load import load

    dtype: torch.dtype | None = None if keep_type else torch.float32
    screen = console(sys.stderr)
    if not screen.is_terminal:
        return load(run, stage, dtype=dtype)
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

    with Progress(
        "Reading", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=screen, transient=True
    ) as bar:
        task = bar.add_task("", total=None, visible=False)
        return load(
            run,
            stage,
            dtype=dtype,
            progress=lambda done, total: bar.update(task, completed=done, total=total, visible=True),
        )


def open_for_writing(run: str | Path, stage: str | None = None) -> LoadedModel:
    """`open_model`, then made ready to write, with a line on standard error meanwhile.

    For a large model that means compiling: some seconds, once per machine.

    Raises:
        UserError: as `underhood.load`.
    """
    from rich.live import Live

    from underhood.infer.opening import optimize_if_large

    loaded = open_model(run, stage)
    screen = console(sys.stderr)
    note = Live("Making the model ready to write", console=screen, auto_refresh=False, transient=True)
    with note if screen.is_terminal else nullcontext():
        return optimize_if_large(loaded)


def open_base(model: str, stage: str | None = None) -> LoadedModel:
    """`open_model` for those who want text predicted: a run's first model, unless another is named.

    Raises:
        UserError: as `underhood.load`.
    """
    from underhood.infer.stages import stages_of

    if stage is None and (models := stages_of(Path(model))):
        stage = models[0]
    return open_model(model, stage)
