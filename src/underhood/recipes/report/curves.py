"""The training curves of a run, read from its log."""

from __future__ import annotations

from collections.abc import Sequence

from underhood.recipes.report.reading import Event, Run, steps_of
from underhood.ui.curves import Curve, smoothed_curve, turn_of

LABELS = {"pretrain": "Pretraining", "sft": "Fine-tuning (SFT)", "dpo": "Preferences (DPO)"}
DRAWN = {
    "pretrain": ("bits_per_byte", "loss"),
    "sft": ("loss", "answer_accuracy"),
    "dpo": ("preference_accuracy", "reward_margin"),
}
"""What is drawn of each stage. DPO's loss falls whenever its margin grows: the margin says it in plainer units."""


def curves(run: Run, stage: str) -> list[Curve]:
    """All curves of one training stage, the most telling first; empty where nothing was logged."""
    events = steps_of(run, stage)
    keys = [key for key in DRAWN[stage] if len(_logged(events, key)) >= 2]
    if stage == "pretrain" and len(keys) == 2:
        keys = keys[:1]  # the loss is the same curve in another unit
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
        rates: steps and learning rates, to mark in pretraining where the rate begins to fall.
        tokens: tokens read at each step; planned: steps planned.
    """
    pretraining = stage == "pretrain" and key in DRAWN["pretrain"]
    marks = [(step, float(event[key])) for event in _logged(evals, key) if isinstance(step := event.get("step"), int)]
    return smoothed_curve(
        stage,
        LABELS.get(stage, stage),
        key,
        steps,
        values,
        tokens=tokens,
        marks=marks,
        turn=turn_of(*rates) if rates and pretraining else None,
        planned=planned,
        log=pretraining,
    )


def _logged(events: Sequence[Event], key: str) -> list[Event]:
    return [event for event in events if isinstance(event.get(key), (int, float))]


def _curve(run: Run, stage: str, key: str, events: Sequence[Event]) -> Curve:
    logged, rated = _logged(events, key), _logged(events, "lr_factor")
    counts = [count for event in logged if isinstance(count := event.get("tokens"), int)]
    return stage_curve(
        stage,
        key,
        [int(event["step"]) for event in logged],
        [float(event[key]) for event in logged],
        evals=run.of(stage, "eval"),
        rates=([event["step"] for event in rated], [event["lr_factor"] for event in rated]) if rated else None,
        tokens=counts if len(counts) == len(logged) else None,
        planned=run.stages[stage].steps,
    )
