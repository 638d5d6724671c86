"""Subjects of the page: a model (a stage, a checkpoint, another model) with a prompt, opened when it is asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from underhood.core.errors import UserError
from underhood.infer.fetch import fetch, model_title
from underhood.infer.load import LoadedModel, load
from underhood.infer.stages import find_stage, stages_of, steps_on_disk
from underhood.inspect.sites import sites_of
from underhood.inspect.through_training import SavedModel, checkpoint_model
from underhood.inspect.trace import Trace, checked_position, prompt_tokens, trace
from underhood.models.decoder import Decoder
from underhood.web.inside.fits import Fits
from underhood.web.token_view import prompt_of

MODELS_KEPT = 3
SUBJECTS_KEPT = 6
TRACED = ("residual", "mixer", "feedforward", "query", "key", "value")
"""What the panels read, recorded in a single pass."""

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class ModelChoice:
    """A model that the page can show.

    Attributes:
        id: in addresses: a stage, a stage with a step (``base@100``), or a model's name.
        stage: that it is of.
        step: of training; None for a model of others.
        path, wanted: what `load` takes.
        run: the folder of the run that has it; None for a model of others.
    """

    id: str
    stage: str
    step: int | None
    path: Path
    wanted: str | None = None
    run: Path | None = None


@dataclass(eq=False)
class Subject:
    """A model with a prompt: what every view is of; and the models that it can be compared with.

    Attributes:
        chat: the prompt is a question, read in the model's chat template.
        memory: what views keep of their work.
    """

    loaded: LoadedModel
    choice: ModelChoice
    prompt: str
    others: InsideModels | None = None
    chat: bool = False
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> Decoder:
        return self.loaded.decoder

    @cached_property
    def ids(self) -> list[int]:
        """The prompt's tokens.

        Raises:
            UserError: there are none, or more than the context has; or the model has not learnt to chat.
        """
        if not self.chat:
            return prompt_tokens(self.loaded, self.prompt)
        return prompt_tokens(self.loaded, prompt_of(self.loaded, [{"role": "user", "content": self.prompt}], None))

    def with_prompt(self, prompt: str) -> "Subject":
        """The same model with another prompt."""
        return Subject(self.loaded, self.choice, prompt, self.others, self.chat)

    @cached_property
    def trace(self) -> Trace:
        """Residual streams, what is added to them, queries and keys."""
        kinds = {site.partition(".")[0] for site in sites_of(self.model)}
        return trace(self.loaded, self.ids, [kind for kind in TRACED if kind in kinds])

    @property
    def attending(self) -> list[int]:
        """Layers whose attention can be shown."""
        return [layer for layer in sorted(self.trace.attention) if f"query.{layer}" in self.trace.values]

    def at(self, position: int) -> int:
        """A position in the prompt, counted from the beginning.

        Raises:
            UserError: the prompt has no such position.
        """
        return checked_position(position, len(self.ids))


@dataclass
class InsideModels:
    """The models that one page can show; the last few are kept in memory.

    Args:
        choices: what there is, in order of training, by id.
        first: the one that is shown first.
        chat: prompts are questions, read in the models' chat templates.
        fits: what was trained to look at them.
    """

    choices: dict[str, ModelChoice]
    first: str
    chat: bool = False
    fits: Fits = field(default_factory=Fits)
    _models: OrderedDict[str, LoadedModel] = field(default_factory=OrderedDict)
    _subjects: OrderedDict[tuple[str, str], Subject] = field(default_factory=OrderedDict)
    lock: threading.RLock = field(default_factory=threading.RLock)

    @classmethod
    def open(
        cls, name: str | Path, stage: str | None = None, beside: Sequence[str | Path] = (), *, chat: bool = False
    ) -> "InsideModels":
        """All stages and checkpoints of a run, or a published model; `stage` is shown first, else the last one.

        Args:
            beside: further models to compare it with.

        Raises:
            UserError: there is no such model.
        """
        own = model_choices(name, stage)
        choices = {choice.id: choice for choice in own}
        first = shown_first(own, stage)
        for other in beside:
            title = model_title(other, fetch(other))
            for choice in model_choices(other, None):
                id = title if choice.step is None else f"{title}:{choice.id}"
                choices.setdefault(id, replace(choice, id=id))
        models = cls(choices, first, chat)
        models.model(first)
        return models

    @classmethod
    def of_runs(cls, runs: Sequence[Path]) -> "InsideModels":
        """What several runs and published models have; each is opened when it is first looked into."""
        choices: dict[str, ModelChoice] = {}
        first = ""
        for run in runs:
            title = model_title(run, run)
            for choice in model_choices(run, None):
                id = choice.id if choice.step is None or len(runs) == 1 else f"{title}:{choice.id}"
                choices.setdefault(id, replace(choice, id=id))
            first = first or next(reversed(choices))
        return cls(choices, first)

    @classmethod
    def of(cls, loaded: LoadedModel, id: str) -> "InsideModels":
        """A model that is open already."""
        return cls({id: ModelChoice(id, loaded.stage, None, loaded.path)}, id, _models=OrderedDict([(id, loaded)]))

    def model(self, id: str) -> LoadedModel:
        """A model by its id.

        Raises:
            UserError: there is none such, or it is not a decoder.
        """
        if id not in self.choices:
            raise UserError(f"there is no model {id!r} here", expected=" or ".join(self.choices))
        with self.lock:
            choice = self.choices[id]
            return _kept(self._models, id, MODELS_KEPT, lambda: _decoder(self._opened(choice)))

    def _opened(self, choice: ModelChoice) -> LoadedModel:
        """A model; where another of its run is open, only the weights are read."""
        like = next((model for model in self._models.values() if model.run == choice.run), None)
        if like is None or choice.run is None or choice.step is None:
            return load(choice.path, choice.wanted)
        path = choice.path if choice.wanted is None else find_stage(choice.run, choice.wanted)[1]  # it may be newer
        return checkpoint_model(SavedModel(choice.stage, choice.step, path), like)

    def of_run(self, run: Path) -> list[ModelChoice]:
        """All checkpoints of a run, in order of training."""
        return [choice for choice in self.choices.values() if choice.run == run]

    def subject(self, id: str, prompt: str) -> Subject:
        """A model with a prompt."""
        loaded = self.model(id)
        with self.lock:
            return _kept(
                self._subjects,
                (id, prompt),
                SUBJECTS_KEPT,
                lambda: Subject(loaded, self.choices[id], prompt, self, self.chat),
            )


def model_choices(name: str | Path, stage: str | None) -> list[ModelChoice]:
    """A run's stages with all their checkpoints, in order of training; of a published model the one that it is."""
    folder = fetch(name)
    if (folder / "state.json").exists():  # a single checkpoint in a run
        folder = folder.parents[2]
    stages = stages_of(folder)
    if not stages:
        if not folder.exists():
            find_stage(folder, stage)  # says what there is
        return [ModelChoice(model_title(name, folder), "published", None, folder, stage)]
    choices = []
    for each in stages:
        steps = sorted(steps_on_disk(folder, each).items())
        for step, path in steps:
            last = step == steps[-1][0]
            id = each if last else f"{each}@{step}"
            choices.append(ModelChoice(id, each, step, folder if last else path, each if last else None, folder))
    return choices


def shown_first(choices: Sequence[ModelChoice], stage: str | None) -> str:
    """The id of a stage's last checkpoint, or of the last stage's."""
    ids = [choice.id for choice in choices]
    if stage is None or choices[0].step is None:
        return ids[-1]
    if stage not in ids:
        raise UserError(f"there is no {stage} model", expected=" or ".join(id for id in ids if "@" not in id))
    return stage


def _decoder(loaded: LoadedModel) -> LoadedModel:
    assert loaded.decoder is not None  # `decoder` explains what else it is
    return loaded


def _kept(kept: OrderedDict[Key, Value], key: Key, most: int, make: Callable[[], Value]) -> Value:
    """A value that was made before, or a new one in place of the one unused for longest."""
    if key not in kept:
        kept[key] = make()
        while len(kept) > most:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]
