"""Training dynamics: any view of a model, worked out for every checkpoint that a run has kept.

A build keeps small snapshots of its weights at steps that grow by a constant factor (see `recipes.film`), and one
checkpoint of every stage. They are read in order into one model, whose weights are overwritten each time, and the
prompt is tokenised once. So a view of twenty checkpoints costs twenty forward passes and the reading of their files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from underhood.core.checkpoint import read_checkpoint
from underhood.core.errors import UserError
from underhood.infer.fetch import fetch
from underhood.infer.load import LoadedModel, load
from underhood.infer.published_model import is_published
from underhood.infer.stages import find_stage, stages_of, steps_on_disk
from underhood.inspect.trace import Trace, pieces_of, prompt_tokens, trace
from underhood.models.gguf_reader import is_gguf
from underhood.models.restore import restore, spec_of
from underhood.text.chat import CHATML
from underhood.ui import notebook

Value = TypeVar("Value")
Progress = Callable[[int, int], None]
"""Called with the checkpoints that are done, and with all."""


@dataclass(frozen=True)
class SavedModel:
    """A checkpoint or snapshot of a run's model.

    Attributes:
        stage: the name of the model, e.g. ``base``.
        step: steps of its own stage.
        path: its folder.
    """

    stage: str
    step: int
    path: Path

    @property
    def label(self) -> str:
        return f"{self.stage} {self.step:,}"


@dataclass(frozen=True)
class TraceView(Generic[Value]):
    """A function of a model and a trace, with the sites that the trace must have; called like the function."""

    sites: tuple[str, ...]
    value: Callable[[LoadedModel, Trace], Value]

    def __call__(self, loaded: LoadedModel, trace: Trace) -> Value:
        return self.value(loaded, trace)


@dataclass(frozen=True, repr=False)
class ThroughTraining(Generic[Value]):
    """One value for each checkpoint of a run, in the order of training.

    Attributes:
        run: the run's folder.
        ids: the prompt's tokens.
        pieces: the same as text.
        checkpoints: where the values are from.
        values: what the view gave for each of them.
    """

    run: Path
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    checkpoints: tuple[SavedModel, ...]
    values: tuple[Value, ...]

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[tuple[SavedModel, Value]]:
        return zip(self.checkpoints, self.values, strict=True)

    @property
    def labels(self) -> list[str]:
        """Stage and step of each checkpoint."""
        return [checkpoint.label for checkpoint in self.checkpoints]

    def stacked(self) -> Tensor:
        """The values as one tensor (C, …), the C checkpoints first; for values that are numbers or tensors."""
        return torch.stack([torch.as_tensor(value) for value in self.values])

    def __repr__(self) -> str:
        return f"<{len(self)} checkpoints of {self.run}, {self.labels[0]} to {self.labels[-1]}>"

    def _repr_html_(self) -> str:
        rows = [(label, _cell(value)) for label, value in zip(self.labels, self.values, strict=True)]
        title = notebook.facts_table("Through training", {"Run": self.run, "Prompt": "".join(self.pieces)})
        return notebook.framed(title, notebook.data_table(["checkpoint", "value"], rows))


def saved_models(run: str | Path, stages: Sequence[str] | None = None) -> list[SavedModel]:
    """The checkpoints and snapshots of a run, in the order of training.

    Args:
        stages: names of the models that are wanted; None means all.

    Raises:
        UserError: there is no such run or stage, or it is a published model, which keeps nothing of its training.
    """
    folder = fetch(run)
    if is_gguf(folder) or (is_published(folder) and not stages_of(folder)):
        raise UserError(
            f"{run} is a published model and has no checkpoints of its training",
            fix="Give the folder of a run, as underhood build makes it",
        )
    for stage in stages or [None]:
        find_stage(folder, stage)
    return [
        SavedModel(stage, step, path)
        for stage in stages_of(folder)
        if stages is None or stage in stages
        for step, path in sorted(steps_on_disk(folder, stage).items())
    ]


def checkpoint_models(
    run: str | Path, *, stages: Sequence[str] | None = None, progress: Progress | None = None
) -> Iterator[tuple[SavedModel, LoadedModel]]:
    """Each checkpoint of a run with its model.

    Checkpoints of the same shape share one module, whose weights the next one overwrites: compute all that you
    keep of a model before you ask for the next one.

    Args:
        stages: as for `saved_models`.
        progress: told how many checkpoints are done.

    Raises:
        UserError: as for `saved_models`, a file is damaged, or the run has one checkpoint only.
    """
    saved = saved_models(run, stages)
    if len(saved) < 2:
        raise UserError(
            f"{run} has kept one checkpoint ({saved[0].label})",
            expected="at least two, to look at the training between them",
            fix="Build it again: a build of at least 30 seconds keeps snapshots, if the model is not too large for them"
            if stages is None
            else "Leave out the stage, or build the run again: a build keeps snapshots",
        )
    loaded = load(saved[0].path)
    for done, model in enumerate(saved):
        if done:
            loaded = checkpoint_model(model, loaded, overwrite=True)
        yield model, loaded
        if progress is not None:
            progress(done + 1, len(saved))


def checkpoint_model(saved: SavedModel, like: LoadedModel, *, overwrite: bool = False) -> LoadedModel:
    """The model of a checkpoint, with the tokenizer and template of another model of its run, which are not read again.

    Args:
        like: the other model.
        overwrite: gives its module the new weights, if it has their shape; else the new model has its own.

    Raises:
        UserError: the checkpoint is missing or damaged.
    """
    checkpoint = read_checkpoint(saved.path)
    module = like.model
    if spec_of(checkpoint) != like.spec:
        return load(saved.path)
    if overwrite:
        checkpoint.fill(module, "model")
    else:
        module = restore(checkpoint)
        module.requires_grad_(False)
    return replace(
        like,
        model=module,
        stage=saved.stage,
        path=saved.path,
        step=checkpoint.step,
        template=like.template if like.roles is not None else CHATML if checkpoint.state.get("chats") else None,
        retrieval=checkpoint.state.get("retrieval"),
    )


def through_training(
    run: str | Path,
    prompt: str | Sequence[int],
    view: Callable[[LoadedModel, Trace], Value],
    *,
    sites: Sequence[str] | None = None,
    stages: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> ThroughTraining[Value]:
    """A view of one prompt for every checkpoint of a run.

    Args:
        prompt: a text, or token ids.
        view: a function of a model and its trace of the prompt. It may keep numbers, but not the model, whose
            weights change (see `checkpoint_models`).
        sites: that are traced; None means those of a `TraceView`, and ``residual`` for any other function.
        stages: names of the models that are wanted, e.g. ``["base"]``; None means all.
        progress: told how many checkpoints are done.

    Raises:
        UserError: as for `checkpoint_models` and `trace`.
    """
    if sites is None:
        sites = view.sites if isinstance(view, TraceView) else ("residual",)
    ids: list[int] = []
    pieces: tuple[str, ...] = ()
    checkpoints, values = [], []
    for checkpoint, loaded in checkpoint_models(run, stages=stages, progress=progress):
        if not ids:
            ids = prompt_tokens(loaded, prompt)
            pieces = pieces_of(loaded, ids)
        checkpoints.append(checkpoint)
        values.append(view(loaded, trace(loaded, ids, sites)))
    return ThroughTraining(fetch(run), tuple(ids), pieces, tuple(checkpoints), tuple(values))


def _cell(value: object) -> object:
    """A value as a cell of a table: a number as it is, a tensor by its shape and range, anything else by its repr."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Tensor):
        numbers = value.float()
        return f"{' × '.join(map(str, value.shape))}, {float(numbers.min()):.4g} to {float(numbers.max()):.4g}"
    return value if isinstance(value, int) else repr(value)
