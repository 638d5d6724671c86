"""Opening a model with something to look at: the weights of a large one take a while to read."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.ui.terminal import console

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from underhood.infer.load import LoadedModel
    from underhood.models.hub_weights import Progress


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
    return _with_bar(lambda progress: load(run, stage, dtype=dtype, progress=progress))


def _with_bar(read: Callable[[Progress | None], LoadedModel]) -> LoadedModel:
    screen = console(sys.stderr)
    if not screen.is_terminal:
        return read(None)
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn
    from rich.progress import Progress as ProgressBar

    with ProgressBar(
        "Reading", BarColumn(), DownloadColumn(), TimeRemainingColumn(), console=screen, transient=True
    ) as bar:
        task = bar.add_task("", total=None, visible=False)
        return read(lambda done, total: bar.update(task, completed=done, total=total, visible=True))


def open_for_writing(run: str | Path, stage: str | None = None) -> LoadedModel:
    """`open_model`, then made ready to write, with a line on standard error meanwhile.

    A GGUF file's quantised matrices stay in few bits. On a new machine kernels are compiled after the first token.

    Raises:
        UserError: as `underhood.load`.
    """
    from rich.live import Live

    from underhood.infer.opening import is_large, optimize_if_large
    from underhood.infer.packed_loading import load_for_inference
    from underhood.kernels.jit import defer_compiling

    new = defer_compiling()
    loaded = _with_bar(lambda progress: load_for_inference(run, stage, progress=progress))
    screen = console(sys.stderr)
    if loaded.note:
        print(loaded.note, file=sys.stderr)
    if new and is_large(loaded):
        print("Kernels are compiled once, after the first token: half a minute", file=sys.stderr)
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
