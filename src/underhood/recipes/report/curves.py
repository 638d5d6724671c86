"""The training curves of a run, read from its log."""

from __future__ import annotations

from collections.abc import Sequence

from underhood.recipes.report.run_reader import Event, RecordedRun, logged_once, steps_of
from underhood.recipes.stages.display import title_of
from underhood.recipes.stages.registry import find_stage
from underhood.ui.curves import Curve, smoothed_curve, turn_of


def curves(run: RecordedRun, stage: str) -> list[Curve]:
    """All curves of one training stage, the most telling first; empty where nothing was logged."""
    events = steps_of(run, stage)
    record = find_stage(stage)  # none for a training outside of a build, such as that of a classifier
    wanted, most = (record.curves, record.first_curves) if record else (("loss",), 1)
    keys = [key for key in wanted if len(_logged(events, key)) >= 2][:most]
    return [_curve(run, stage, key, events) for key in keys]


def stage_curve(
    stage: str,
    key: str,
    steps: Sequence[int],
    values: Sequence[float],
    *,
    evals: Sequence[Event] = (),
    rates: tuple[Sequence[int], Sequence[float]] | None = None,
    tokens: Sequence[int] | None = None,
    planned: int | None = None,
) -> Curve:
    """The curve of one quantity over one training stage.

    Args:
        evals: held-out evaluations; those that measured `key` become marks.
        rates: steps and learning rates, to mark where the rate begins to fall after a plateau.
        tokens: tokens read at each step; planned: steps planned.
    """
    record = find_stage(stage)
    main = record if record is not None and key in record.curves else None
    marks = [(step, float(event[key])) for event in _logged(evals, key) if isinstance(step := event.get("step"), int)]
    return smoothed_curve(
        stage,
        title_of(stage),
        key,
        steps,
        values,
        tokens=tokens,
        marks=marks,
        turn=turn_of(*rates) if rates and main and main.has_plateau else None,
        planned=planned,
        log=main is not None and main.log_scale,
    )


def _logged(events: Sequence[Event], key: str) -> list[Event]:
    return [event for event in events if isinstance(event.get(key), (int, float))]


def _curve(run: RecordedRun, stage: str, key: str, events: Sequence[Event]) -> Curve:
    logged, rated = _logged(events, key), _logged(events, "lr_factor")
    counts = [count for event in logged if isinstance(count := event.get("tokens"), int)]
    return stage_curve(
        stage,
        key,
        [int(event["step"]) for event in logged],
        [float(event[key]) for event in logged],
        evals=logged_once(run.of(stage, "eval")),
        rates=([event["step"] for event in rated], [event["lr_factor"] for event in rated]) if rated else None,
        tokens=counts if len(counts) == len(logged) else None,
        planned=run.stages[stage].steps if stage in run.stages else None,
    )
