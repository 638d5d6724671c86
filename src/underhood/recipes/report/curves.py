"""Training curves: what was logged, thinned to what an eye can see, in coordinates that any width can carry.

A chart is plain SVG in percent of its area, drawn when the report is written: it shows without JavaScript, prints, and
weighs a few kilobytes. The page's script only adds the cursor that reads values off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from underhood.recipes.report import numbers
from underhood.recipes.report.reading import Event, Run, steps_of

POINTS = 240
"""Points drawn per curve. More could not be told apart at the width of a page."""

LABELS = {"pretrain": "Pretraining", "sft": "Fine-tuning (SFT)", "dpo": "Preferences (DPO)"}
QUANTITIES: dict[str, tuple[str, str, int]] = {  # key: name, unit, decimals
    "bits_per_byte": ("Bits per byte", "bits per byte", 3),
    "loss": ("Loss", "nats per token", 3),
    "answer_accuracy": ("Answer tokens it would have chosen itself", "of answer tokens", 2),
    "preference_accuracy": ("Better answer preferred", "of pairs", 2),
    "reward_margin": ("Reward margin", "nats", 2),
    "grad_norm": ("Gradient norm", "", 3),
    "lr_factor": ("Learning rate", "of its highest", 2),
    "tokens_per_second": ("Speed", "tokens per second", 0),
    "utilisation": ("Of the machine’s measured limit", "of the limit", 2),
}
DRAWN = {
    "pretrain": ("bits_per_byte", "loss"),
    "sft": ("loss", "answer_accuracy"),
    "dpo": ("preference_accuracy", "reward_margin"),
}
"""What is drawn of each stage. DPO's loss falls whenever its margin grows: the margin says it in plainer units."""


@dataclass(frozen=True)
class Curve:
    """One quantity over one stage, ready to draw.

    Attributes:
        stage: whose colour it wears.
        x: updates made at each point; y: the mean of the steps around it; low, high: their 10 % and 90 % quantiles.
        marks: held-out evaluations, as (step, value).
        reference: a level to compare with, and what it means.
        turn: the step from which the learning rate falls.
        tokens: tokens read at each point, or None.
    """

    stage: str
    title: str
    unit: str
    digits: int
    x: list[int]
    y: list[float]
    low: list[float]
    high: list[float]
    marks: list[tuple[int, float]] = field(default_factory=list)
    reference: tuple[float, str] | None = None
    turn: int | None = None
    tokens: list[int] | None = None
    log: bool = False
    steps: int | None = None

    @property
    def share(self) -> bool:
        return self.unit.startswith("of ")

    def _range(self) -> tuple[float, float]:
        values = [*self.y, *(value for _, value in self.marks)]
        ordered = sorted([*values, *self.low, *self.high])
        # One wild step must not flatten all the others.
        low, high = ordered[int(0.005 * len(ordered))], ordered[math.ceil(0.995 * len(ordered)) - 1]
        low, high = min(low, *values[len(self.y) :], self.y[-1]), max(high, self.y[0])
        if self.reference is not None and not self.log:
            low, high = min(low, self.reference[0]), max(high, self.reference[0])
        pad = 0.04 * (high - low) or 0.05 * abs(high) or 1.0
        if self.log:
            return low / 1.04, high * 1.02
        return low - pad, high + pad

    def left(self, step: float) -> float:
        """Percent from the left edge."""
        return round(100 * step / max(self.last, 1), 3)

    def up(self, value: float) -> float:
        """Percent from the top edge, within the area."""
        low, high = self._range()
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-12))
        return round(min(max(100 - 100 * (value - low) / (high - low), 0), 100), 3)

    @property
    def last(self) -> int:
        """The right edge: the steps planned, so that an unfinished run is seen to be unfinished."""
        return max(self.x[-1], self.steps or 0)

    def line(self) -> str:
        """The curve as an SVG path in a 100 × 100 box."""
        return "M" + "L".join(f"{self.left(x)} {self.up(y)}" for x, y in zip(self.x, self.y, strict=True))

    def band(self) -> str:
        """The spread around it as a closed SVG path."""
        there = [f"{self.left(x)} {self.up(y)}" for x, y in zip(self.x, self.high, strict=True)]
        back = [f"{self.left(x)} {self.up(y)}" for x, y in zip(self.x, self.low, strict=True)]
        return "M" + "L".join(there + back[::-1]) + "Z"

    def y_ticks(self) -> list[tuple[float, str]]:
        low, high = self._range()
        if self.log:
            ladder = [b * 10.0**e for e in range(-4, 5) for b in (1, 1.5, 2, 3, 4, 5, 6, 8)]
            inside = [value for value in ladder if low <= value <= high]
            return [(self.up(value), f"{value:g}") for value in inside]
        ticks = numbers.nice_ticks(low, high, 4)
        step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
        labels = [numbers.percent(t) if self.share else numbers.tick(t, step) for t in ticks]
        inside = zip(ticks, labels, strict=True)
        return [(self.up(value), label) for value, label in inside if not self.share or 0 <= value <= 1]

    def x_ticks(self) -> list[tuple[float, str]]:
        return [(self.left(t), numbers.whole(t)) for t in numbers.nice_ticks(0, self.last, 4) if t == int(t)]

    def value(self, number: float) -> str:
        """A value of this curve with its unit."""
        if self.share:
            return f"{numbers.percent(number)} {self.unit}"
        return f"{numbers.decimal(number, self.digits)} {self.unit}"

    def short(self, number: float) -> str:
        return numbers.percent(number) if self.share else numbers.decimal(number, self.digits)

    def ends(self) -> list[dict[str, Any]]:
        """Labels at the line's end: the last value, and the last held-out one kept clear of it."""
        labels = [{"kind": "value", "at": self.up(self.y[-1]), "text": self.short(self.y[-1])}]
        if self.marks:
            at = self.up(self.marks[-1][1])
            apart = at - labels[0]["at"]
            if abs(apart) < 9:
                at = labels[0]["at"] + (9 if apart > 0 else -9)
            labels.append({"kind": "held", "at": at, "text": self.short(self.marks[-1][1])})
        return labels

    @property
    def description(self) -> str:
        """The picture in one sentence, for those who can't see it."""
        return (
            f"{LABELS.get(self.stage, self.stage)}: {self.title.lower()} went from {self.value(self.y[0])} "
            f"to {self.value(self.y[-1])} over {numbers.whole(self.x[-1])} steps."
        )

    def points(self) -> dict[str, Any]:
        """What the page's cursor reads: places in percent and the words for each point."""
        words = []
        for index, (step, value) in enumerate(zip(self.x, self.y, strict=True)):
            read = f" · {numbers.count(self.tokens[index])} tokens" if self.tokens else ""
            words.append(f"step {numbers.whole(step)}{read} · {self.value(value)}")
        return {
            "x": [self.left(x) for x in self.x],
            "y": [self.up(y) for y in self.y],
            "words": words,
        }


def curves(run: Run, stage: str) -> list[Curve]:
    """All curves of one training stage, the most telling first; empty where nothing was logged."""
    events = steps_of(run, stage)
    keys = [key for key in DRAWN[stage] if len(_logged(events, key)) >= 2]
    if stage == "pretrain" and len(keys) == 2:
        keys = keys[:1]  # the loss is the same curve in another unit
    return [_curve(run, stage, key, events) for key in keys]


def _logged(events: Sequence[Event], key: str) -> list[Event]:
    return [event for event in events if isinstance(event.get(key), (int, float))]


def _curve(run: Run, stage: str, key: str, events: Sequence[Event]) -> Curve:
    found = _logged(events, key)
    rated = _logged(events, "lr_factor") if stage == "pretrain" else []
    counts = [count for event in found if isinstance(count := event.get("tokens"), int)]
    evals = [event for event in run.of(stage, "eval") if isinstance(event.get(key), (int, float))]
    return thinned(
        stage,
        key,
        [int(event["step"]) for event in found],
        [float(event[key]) for event in found],
        tokens=counts if len(counts) == len(found) else None,
        marks=[(step, float(event[key])) for event in evals if isinstance(step := event.get("step"), int)],
        turn=turn_of([event["step"] for event in rated], [event["lr_factor"] for event in rated]) if rated else None,
        steps=run.stages[stage].steps,
    )


def thinned(
    stage: str,
    key: str,
    x: Sequence[int],
    raw: Sequence[float],
    *,
    tokens: Sequence[int] | None = None,
    marks: Sequence[tuple[int, float]] = (),
    turn: int | None = None,
    steps: int | None = None,
) -> Curve:
    """The curve of what was logged of `key` at the steps `x`: about `POINTS` points at most, means with spreads.

    Args:
        tokens: tokens read at each of the steps.
        marks, turn, steps: see `Curve`.
    """
    drawn = sorted({*range(0, len(raw), max(1, len(raw) // POINTS)), len(raw) - 1})
    windows = [sorted(_around(raw, index)) for index in drawn]
    y = [sum(window) / len(window) for window in windows]
    title, unit, digits = QUANTITIES.get(key, (key.replace("_", " ").capitalize(), "", 3))
    return Curve(
        stage=stage,
        title=title,
        unit=unit,
        digits=digits,
        x=[x[index] for index in drawn],
        y=y,
        low=[window[len(window) // 10] for window in windows],
        high=[window[-1 - len(window) // 10] for window in windows],
        marks=list(marks),
        reference={"preference_accuracy": (0.5, "chance"), "reward_margin": (0.0, "no preference")}.get(key),
        turn=turn,
        tokens=[tokens[index] for index in drawn] if tokens is not None else None,
        log=stage == "pretrain" and key in DRAWN["pretrain"] and min(y) > 0 and max(y) / min(y) > 2,
        steps=steps,
    )


def _around(raw: Sequence[float], index: int) -> Sequence[float]:
    """The steps around one: 2 % of them to each side, fewer at the start, where the fall is steep."""
    reach = max(2, len(raw) // 50)
    return raw[index - min(reach, index) : index + min(reach, index) + 1]


def turn_of(steps: Sequence[int], rates: Sequence[float]) -> int | None:
    """The step at which the learning rate leaves its highest value, if that is late enough to point at."""
    top = max(rates, default=0.0)
    at_top = [step for step, rate in zip(steps, rates, strict=True) if rate >= 0.999 * top]
    if len(at_top) < 2 or at_top[-1] >= steps[-1] or at_top[-1] < 0.05 * steps[-1]:
        return None
    return at_top[-1]
