"""Training curves of a run as arrays, and as charts in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy import ndarray

from underhood.core.errors import UserError, nearest
from underhood.recipes.report.curves import curves
from underhood.recipes.report.run_reader import RecordedRun, logged_once, read_run, steps_of
from underhood.recipes.stages.display import trained_stages
from underhood.ui import notebook

NOT_MEASURED = {"stage", "kind", "time", "step", "steps", "at"}
"""Fields of an event that are not a measurement."""


@dataclass(frozen=True, repr=False)
class StageCurves:
    """What one stage logged: every quantity as an array, one value per logged step.

    Attributes:
        steps: the steps at which the values were logged.
        values: arrays by the quantity's name: loss (nats per target token), grad_norm, lr_factor, tokens, …; NaN where
            a step did not log it.
        held_out_steps, held_out: the same for held-out evaluations.
    """

    stage: str
    steps: ndarray
    values: Mapping[str, ndarray]
    held_out_steps: ndarray
    held_out: Mapping[str, ndarray]

    @property
    def loss(self) -> ndarray:
        """Training loss in nats per target token."""
        return self["loss"]

    def __getitem__(self, name: str) -> ndarray:
        """The array of a quantity.

        Raises:
            UserError: the stage did not log it; the message has the nearest.
        """
        if name not in self.values:
            near = nearest(name, self.values)
            raise UserError(
                f"the stage {self.stage} logged no {name!r}",
                expected=", ".join(self.values) or "nothing; it has logged no step yet",
                fix=f"Did you mean {near!r}?" if near else None,
            )
        return self.values[name]

    def __repr__(self) -> str:
        if not len(self.steps):
            return f"<{self.stage}: nothing logged yet>"
        loss = self.values.get("loss")
        change = "" if loss is None else f", loss {loss[0]:.3f} → {loss[-1]:.3f}"
        logged = f"{len(self.steps)} values to step {int(self.steps[-1]):,}{change}"
        return f"<{self.stage}: {logged}; {', '.join(self.values)}>"


@dataclass(frozen=True, repr=False)
class TrainingCurves:
    """The curves of a run by stage, in the order of the pipeline; stages that logged nothing are left out."""

    run: RecordedRun
    stages: Mapping[str, StageCurves]

    def __getitem__(self, stage: str) -> StageCurves:
        if stage not in self.stages:
            raise UserError(
                f"{self.run.path} has no curves of a stage {stage!r}",
                expected=", ".join(self.stages) or "nothing; no stage has logged a step yet",
            )
        return self.stages[stage]

    def keys(self) -> list[str]:
        """The stages that logged something."""
        return list(self.stages)

    def __contains__(self, stage: object) -> bool:
        return stage in self.stages

    def __iter__(self) -> Iterator[str]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self.stages.values())) or f"<{self.run.path}: nothing logged yet>"

    def _repr_html_(self) -> str:
        return notebook.framed(*self.charts())

    def charts(self) -> list[Markup]:
        """The most telling curve of each stage as HTML."""
        drawn = [curves(self.run, stage)[:1] for stage in self.stages]
        return [notebook.curve_chart(curve) for first in drawn for curve in first]


def read_training_curves(path: Path) -> TrainingCurves:
    """The curves that the log of a run holds.

    Raises:
        UserError: there is no run, or its log is damaged.
    """
    run = read_run(path)
    stages = {}
    logged = [str(event.get("stage")) for event in run.events if event.get("kind") == "step"]
    for stage in dict.fromkeys((*trained_stages(), *logged)):
        steps, evaluations = steps_of(run, stage), logged_once(run.of(stage, "eval"))
        if steps:
            stages[stage] = StageCurves(
                stage, _column(steps, "step"), _arrays(steps), _column(evaluations, "step"), _arrays(evaluations)
            )
    return TrainingCurves(run, stages)


def _arrays(events: list[dict[str, object]]) -> dict[str, ndarray]:
    names = dict.fromkeys(
        name
        for event in events
        for name, value in event.items()
        if name not in NOT_MEASURED and isinstance(value, (int, float)) and not isinstance(value, bool)
    )
    return {name: _column(events, name) for name in names}


def _column(events: list[dict[str, object]], name: str) -> ndarray:
    numbers = (value if isinstance(value := event.get(name), (int, float)) else np.nan for event in events)
    return np.asarray(list(numbers), np.float64)
