"""The registry of training stages: one record per stage, read by plan, run folder, commands, report and pages.

A stage is one file in this folder that defines ``STAGE``. Reading the records loads no PyTorch, so that the command
line can list them at once: what a stage needs for training, its functions import when they are called.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underhood.core.errors import UserError, nearest

if TYPE_CHECKING:
    from torch import Tensor

    from underhood.core.device import Device
    from underhood.core.protocols import ModelSpec, Tokenizer
    from underhood.core.runlog import RunLog
    from underhood.data.shards import TokenShards
    from underhood.models.base import BuiltModel
    from underhood.recipes.training_data import StageData
    from underhood.text.chat import Template
    from underhood.train.held_out import HeldOut
    from underhood.train.loop import FitResult, Objective
    from underhood.train.plan import StagePlan

CIRCLE = "M6 .75a5.25 5.25 0 1 0 0 10.5a5.25 5.25 0 1 0 0-10.5Z"
"""SVG path of the default mark, in a 12 × 12 box."""


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """What a user can set about a stage; each stage extends it by its own.

    Attributes:
        steps: optimiser steps; the plan decides if left out.
        lr_scale: learning rates of the stage as a share of pretraining's.
    """

    steps: int | None = None
    lr_scale: float = 1.0

    def __post_init__(self):
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


@dataclass(frozen=True, kw_only=True)
class StageInputs:
    """What a stage gets to train with.

    Attributes:
        model: on its device: fresh, or as the stage before left it. It is trained in place.
        data: conversations and preference pairs made from the text.
        documents: the training text as token shards; held_out: the text that is never trained on.
        settings: an instance of the stage's `settings`.
        plan: steps, batch size and context length.
        template: how conversations of the model that the run starts from are written; None for a fresh one: ChatML.
        run: the run's folder, where the models are that the stage uses beside the one it trains.
    """

    model: BuiltModel
    data: StageData
    documents: TokenShards
    tokenizer: Tokenizer
    settings: Any
    plan: StagePlan
    device: Device
    seed: int
    template: Template | None = None
    held_out: TokenShards | None = None
    run: Path | None = None


@dataclass(frozen=True, kw_only=True)
class StageTraining:
    """What a stage with a loop of its own gets beside its inputs.

    Attributes:
        lr: learning rate.
        seconds: how long it may take; None for a fixed number of steps.
        trained_only: only what learns is kept in checkpoints (adapters).
        checkpoints: their folder; an interrupted training goes on from the newest.
        state: facts for every checkpoint.
    """

    lr: float
    seconds: float | None
    trained_only: bool
    log: RunLog
    checkpoints: Path
    state: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StageOutcome:
    """What a training has left beside the trained model.

    Attributes:
        groups: further tensors for the model's checkpoint, by the names of their files: a head, for one.
        facts: further facts for the checkpoint's state.
    """

    fit: FitResult
    groups: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DataSize:
    """How much data a stage has.

    Attributes:
        tokens: of all of it together, each once; 0 leaves the stage out of the plan.
        row_tokens: tokens of an example that gets a row of its own; None packs examples into rows of the context.
    """

    tokens: float = math.inf
    row_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A training stage.

    Attributes:
        name: of the stage in commands, plan and log, e.g. ``pretrain``.
        model: of the model that it makes: in checkpoint folders and model ids, e.g. ``base``.
        starts_from: the model that it trains on; None for a fresh one.
        title: as a heading, e.g. ``Fine-tuning (SFT)``.
        short_title, model_title: the stage and its model where there is little room.
        purpose: what it is for, in two or three words.
        command: what its command does, in at most 64 characters; help: the same in paragraphs.
        model_description: what was done to its model, after "A language model, …".
        data_name: what it learns from, in the plural.
        colour: light and dark, as CSS colours; terminal_colour: as rich's style.
        mark: an SVG path in a 12 × 12 box, the second cue beside the colour.
        share: of the training time, relative to the other stages of a plan.
        epochs: how often its data is read at most; infinite takes the time that is left.
        cost: time per token, as a multiple of a pretraining step's.
        warmup, decay: shares of the steps (see `train.schedule`).
        full_rows: whether batches are full rows of targets: then the model may be compiled, and the share of the
            machine's peak means something.
        chats: whether its model answers in chat form. Others are evaluated as models that continue text.
        takes_feedback: whether people's opinions on answers can be mixed into its data.
        improves: the measurements that it must improve.
        curves: what the report draws of its log; first_curves: how many of them the page shows at once.
        optional: whether a plan holds it only where it is wanted: by ``--align NAME`` or by its steps.
        train: trains by a loop of its own, in place of an objective (see `recipes.policy_stage`).
        scores: whether its model scores answers in place of writing them: a reward model.
        any_model: the options with which its command trains any model, on a file; empty where it can't.
        uses: the stages whose models its training uses beside the one it starts from, by its settings.
        keep_best: whether its model is to have the weights with the lowest held-out loss.
        log_scale: whether its curves fall by so much that they are drawn on a logarithmic scale.
        settings: the class of its settings.
        data_size: how much data there is for it.
        objective: its micro-batches and their loss, as `train.loop.fit` wants them.
        held_out: about so many tokens of data that it is never trained on, and their loss; None where there is none.
        initialize: makes the fresh model where `starts_from` is None.
    """

    name: str
    model: str
    starts_from: str | None
    title: str
    short_title: str
    model_title: str
    purpose: str
    command: str
    help: str
    model_description: str
    data_name: str
    colour: tuple[str, str]
    terminal_colour: str
    share: float
    objective: Callable[[StageInputs], Objective] | None
    data_size: Callable[[StageData, Tokenizer], DataSize]
    settings: type[StageSettings] = StageSettings
    initialize: Callable[[ModelSpec, Any, int], BuiltModel] | None = None
    held_out: Callable[[StageInputs, int], HeldOut | None] = lambda inputs, tokens: None
    mark: str = CIRCLE
    epochs: float = math.inf
    cost: float = 1.0
    warmup: float = 0.05
    decay: float = 0.9
    full_rows: bool = False
    chats: bool = True
    takes_feedback: bool = False
    improves: tuple[str, ...] = ()
    curves: tuple[str, ...] = ("loss",)
    first_curves: int = 2
    optional: bool = False
    train: Callable[[StageInputs, StageTraining], StageOutcome] | None = None
    scores: bool = False
    any_model: str = ""
    uses: Callable[[Any], tuple[str, ...]] = lambda settings: ()
    keep_best: bool = False
    log_scale: bool = False

    @property
    def has_plateau(self) -> bool:
        """Whether the learning rate stays at its highest for long enough to point at where it falls."""
        return self.warmup + self.decay < 0.9


_registered: dict[str, Stage] = {}


def register(stage: Stage) -> Stage:
    """Adds a stage that lives outside this folder; it replaces one of the same name."""
    _registered[stage.name] = stage
    return stage


def unregister(name: str) -> None:
    """Takes back `register`."""
    del _registered[name]


@cache
def _own() -> dict[str, Stage]:
    package = importlib.import_module("underhood.recipes.stages")
    modules = [
        importlib.import_module(f"{package.__name__}.{entry.name}") for entry in pkgutil.iter_modules(package.__path__)
    ]
    return {module.STAGE.name: module.STAGE for module in modules if hasattr(module, "STAGE")}


def all_stages() -> tuple[Stage, ...]:
    """Every stage in order of training: after the one that it starts from, and reward models before their users."""
    stages = [*(_own() | _registered).values()]
    return tuple(sorted(stages, key=lambda stage: (_depth(stage, stages), not stage.scores, stage.name)))


def _depth(stage: Stage, stages: Sequence[Stage]) -> int:
    before = next((other for other in stages if other.model == stage.starts_from), None)
    return 0 if before is None else 1 + _depth(before, stages)


def get_stage(name: str) -> Stage:
    """The stage of this name.

    Raises:
        UserError: there is none.
    """
    return _only({stage.name: stage for stage in all_stages()}, name, "stage")


def stage_of_model(model: str) -> Stage:
    """The stage that makes the model of this name.

    Raises:
        UserError: no stage does.
    """
    return _only({stage.model: stage for stage in all_stages()}, model, "model")


def find_model(model: str) -> Stage | None:
    """`stage_of_model`, or None for a model that no stage makes (an imported one, a classifier)."""
    return next((stage for stage in all_stages() if stage.model == model), None)


def find_stage(name: str) -> Stage | None:
    """`get_stage`, or None for other stages (data, tokenizer, eval)."""
    return next((stage for stage in all_stages() if stage.name == name), None)


def stages_before(stage: Stage) -> tuple[Stage, ...]:
    """The stages that lead to this one, the first first."""
    before = None if stage.starts_from is None else find_model(stage.starts_from)
    return () if before is None else (*stages_before(before), before)


def stages_after(stage: Stage) -> tuple[Stage, ...]:
    """The stages whose models come from this one's, in order."""
    return tuple(later for later in all_stages() if stage in stages_before(later))


def _only(stages: dict[str, Stage], name: str, kind: str) -> Stage:
    if name not in stages:
        near = nearest(name, stages)
        hint = f"Did you mean {near}?" if near else None
        raise UserError(f"there is no {kind} {name!r}", expected=" or ".join(stages), fix=hint)
    return stages[name]
