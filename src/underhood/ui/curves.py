"""Training curves: logged values, smoothed and thinned, as SVG paths in percent of the plot area.

Curves show without JavaScript, print, and weigh a few kilobytes. The page's script only adds the cursor that reads
values off.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from underhood.ui import formatting

POINTS = 240
"""Points drawn per curve. More could not be told apart at the width of a page."""

QUANTITIES: dict[str, tuple[str, str, int]] = {  # key: name, unit, decimals
    "bits_per_byte": ("Bits per byte", "bits per byte", 3),
    "loss": ("Loss", "nats per token", 3),
    "answer_accuracy": ("Answer tokens it would have chosen itself", "of answer tokens", 2),
    "preference_accuracy": ("Better answer preferred", "of pairs", 2),
    "reward_margin": ("Reward margin", "nats", 2),
    "reward": ("Mean reward of the answers", "", 3),
    "kl": ("KL from the reference", "nats per answer", 2),
    "entropy": ("Entropy", "nats per token", 2),
    "length": ("Length of the answers", "tokens", 1),
    "cut_off": ("Answers cut off", "of answers", 2),
    "equal_groups": ("Prompts whose answers all got the same reward", "of prompts", 2),
    "clip_fraction": ("Ratios beyond the clip", "of tokens", 3),
    "value_error": ("Squared error of the values", "", 3),
    "grad_norm": ("Gradient norm", "", 3),
    "lr_factor": ("Learning rate", "of its highest", 2),
    "tokens_per_second": ("Speed", "tokens per second", 0),
    "utilisation": ("Of the machine’s measured limit", "of the limit", 2),
}


@dataclass(frozen=True)
class Curve:
    """One quantity over one stage, ready to draw.

    Attributes:
        stage: the training stage, whose colour it has; label: its name in words.
        x: updates made at each point; y: the mean of the steps around it; low, high: their 10 % and 90 % quantiles.
        marks: held-out evaluations, as (step, value).
        reference: a level to compare with, and what it means.
        turn: the step from which the learning rate falls.
        tokens: tokens read at each point, or None.
    """

    stage: str
    label: str
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
        ticks = formatting.nice_ticks(low, high, 4)
        step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
        labels = [formatting.percent(t) if self.share else formatting.tick_label(t, step) for t in ticks]
        inside = zip(ticks, labels, strict=True)
        return [(self.up(value), label) for value, label in inside if not self.share or 0 <= value <= 1]

    def x_ticks(self) -> list[tuple[float, str]]:
        return [(self.left(t), formatting.whole(t)) for t in formatting.nice_ticks(0, self.last, 4) if t == int(t)]

    def value(self, number: float) -> str:
        """A value of this curve with its unit."""
        if self.share:
            return f"{formatting.percent(number)} {self.unit}"
        return f"{formatting.decimal(number, self.digits)} {self.unit}"

    def short(self, number: float) -> str:
        return formatting.percent(number) if self.share else formatting.decimal(number, self.digits)

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
            f"{self.label}: {self.title.lower()} went from {self.value(self.y[0])} "
            f"to {self.value(self.y[-1])} over {formatting.whole(self.x[-1])} steps."
        )

    def points(self) -> dict[str, Any]:
        """What the page's cursor reads: positions in percent and the words for each point."""
        words = []
        for index, (step, value) in enumerate(zip(self.x, self.y, strict=True)):
            read = f" · {formatting.count(self.tokens[index])} tokens" if self.tokens else ""
            words.append(f"step {formatting.whole(step)}{read} · {self.value(value)}")
        return {
            "x": [self.left(x) for x in self.x],
            "y": [self.up(y) for y in self.y],
            "words": words,
        }


def smoothed_curve(
    stage: str,
    label: str,
    key: str,
    steps: Sequence[int],
    values: Sequence[float],
    *,
    tokens: Sequence[int] | None = None,
    marks: Sequence[tuple[int, float]] = (),
    turn: int | None = None,
    planned: int | None = None,
    log: bool = False,
) -> Curve:
    """Thins the values logged under `key` to about `POINTS` points: moving averages with 10 % and 90 % quantiles.

    Args:
        tokens: tokens read at each of the steps.
        marks, turn: see `Curve`; planned: its `steps`.
        log: draw on a logarithmic axis where the values span a factor of 2 or more.
    """
    drawn = sorted({*range(0, len(values), max(1, len(values) // POINTS)), len(values) - 1})
    windows = [sorted(_around(values, index)) for index in drawn]
    y = [sum(window) / len(window) for window in windows]
    title, unit, digits = QUANTITIES.get(key, (key.replace("_", " ").capitalize(), "", 3))
    return Curve(
        stage=stage,
        label=label,
        title=title,
        unit=unit,
        digits=digits,
        x=[steps[index] for index in drawn],
        y=y,
        low=[window[len(window) // 10] for window in windows],
        high=[window[-1 - len(window) // 10] for window in windows],
        marks=list(marks),
        reference={"preference_accuracy": (0.5, "chance"), "reward_margin": (0.0, "no preference")}.get(key),
        turn=turn,
        tokens=[tokens[index] for index in drawn] if tokens is not None else None,
        log=log and min(y) > 0 and max(y) / min(y) > 2,
        steps=planned,
    )


def _around(values: Sequence[float], index: int) -> Sequence[float]:
    """The window of an average: 2 % of the steps to each side, fewer at the start, where the loss falls steeply."""
    reach = max(2, len(values) // 50)
    return values[index - min(reach, index) : index + min(reach, index) + 1]


def turn_of(steps: Sequence[int], rates: Sequence[float]) -> int | None:
    """The step at which the learning rate leaves its highest value, if that is late enough to point at."""
    top = max(rates, default=0.0)
    at_top = [step for step, rate in zip(steps, rates, strict=True) if rate >= 0.999 * top]
    if len(at_top) < 2 or at_top[-1] >= steps[-1] or at_top[-1] < 0.05 * steps[-1]:
        return None
    return at_top[-1]
