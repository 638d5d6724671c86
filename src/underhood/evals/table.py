"""Results table: measurements with intervals for each stage, and the verdict on each stage.

One table serves the report, the command line and ``summary.json``. A verdict is never written by hand: it follows from
the interval of the difference between a stage and the one before it, item by item where both measured the same items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.evals.intervals import Interval, Values, Verdict, paired_ratio, verdict


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One number about one stage.

    Attributes:
        name: the same name means the same measurement at every stage, e.g. ``"bits per byte"``.
        value: the estimate.
        low, high: its 95 % interval; None where there is none (a compressor).
        n: items behind it.
        unit: ``"share"`` (0 to 1, shown in per cent), or what follows the number, e.g. ``"bits/byte"``, ``"nats"``.
        higher_is_better: which way is up.
        chance: what guessing gives, where that means something.
        numerators, denominators: the items behind the value, Σ numerators / Σ denominators; empty where not kept.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    n: int = 1
    unit: str = "share"
    higher_is_better: bool = True
    chance: float | None = None
    numerators: tuple[float, ...] = ()
    denominators: tuple[float, ...] = ()

    def text(self) -> str:
        """For people: ``62.0 % (58.1–65.8)``, ``1.742 bits/byte (1.690–1.795)``."""
        if self.unit == "share":
            number, end = f"{100 * self.value:.1f} %", lambda x: f"{100 * x:.1f}"
        else:
            number, end = f"{self.value:.3f} {self.unit}".strip(), lambda x: f"{x:.3f}"
        return number if self.low is None or self.high is None else f"{number} ({end(self.low)}–{end(self.high)})"


@dataclass(frozen=True, kw_only=True)
class StageResults:
    """All that was measured after one training stage; `stage` is the name of its model."""

    stage: str
    measurements: tuple[Measurement, ...]

    def __post_init__(self):
        names = [measurement.name for measurement in self.measurements]
        if len(set(names)) != len(names):
            raise ValueError(f"stage {self.stage!r} measures something twice: {names}")

    def __getitem__(self, name: str) -> Measurement:
        return next(measurement for measurement in self.measurements if measurement.name == name)

    def get(self, name: str) -> Measurement | None:
        return next((measurement for measurement in self.measurements if measurement.name == name), None)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One measurement at two consecutive stages.

    Attributes:
        difference: after − before.
        low, high: 95 % interval of the paired difference; None where the items weren't kept or don't match, and the
            verdict rests on whether the two intervals overlap (which asks for a larger difference).
    """

    name: str
    before: str
    after: str
    difference: float
    low: float | None
    high: float | None
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class ResultsTable:
    """The stages in order, what they are measured against (compressors, the n-gram), and what each stage changed."""

    stages: tuple[StageResults, ...]
    baselines: tuple[Measurement, ...] = ()
    comparisons: tuple[Comparison, ...] = ()

    @classmethod
    def of(
        cls,
        stages: Sequence[StageResults],
        baselines: Sequence[Measurement] = (),
        *,
        lineage: Mapping[str, Sequence[str]] | None = None,
    ) -> "ResultsTable":
        """The table with each stage compared to the nearest earlier one that measured the same thing.

        Args:
            lineage: for each stage those that its model comes from; all earlier ones if left out.
        """
        comparisons = []
        for number, stage in enumerate(stages):
            for after in stage.measurements:
                for earlier in reversed(stages[:number]):
                    if lineage is not None and earlier.stage not in lineage[stage.stage]:
                        continue
                    before = earlier.get(after.name)
                    if before is not None:
                        comparisons.append(compare(before, after, stages=(earlier.stage, stage.stage)))
                        break
        return cls(stages=tuple(stages), baselines=tuple(baselines), comparisons=tuple(comparisons))

    @property
    def names(self) -> list[str]:
        """Every measurement's name, in order of first appearance."""
        return list(dict.fromkeys(m.name for stage in self.stages for m in stage.measurements))

    def comparison(self, name: str, stage: str) -> Comparison | None:
        """What `stage` changed about the measurement `name`; None at the first stage that measured it."""
        return next((c for c in self.comparisons if c.name == name and c.after == stage), None)

    def to_json(self, *, items: bool = False) -> dict[str, Any]:
        """Plain JSON values; `items` keeps the numbers behind each measurement (the comparisons don't need them)."""
        return to_json(self if items else self.without_items())

    @classmethod
    def from_json(cls, data: dict[str, Any], *, where: str = "results") -> "ResultsTable":
        """The inverse of `to_json`.

        Raises:
            UserError: keys or values that don't belong.
        """
        return from_json(cls, data, where=where)

    @classmethod
    def read(cls, path: Path) -> "ResultsTable":
        """Reads a file that holds `to_json`'s form.

        Raises:
            UserError: no such file, or not results.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path} can't be read as results", got=str(error)) from error
        return cls.from_json(data, where=path.name)

    def without_items(self) -> "ResultsTable":
        def bare(measurements: Sequence[Measurement]) -> tuple[Measurement, ...]:
            return tuple(replace(measurement, numerators=(), denominators=()) for measurement in measurements)

        stages = tuple(replace(stage, measurements=bare(stage.measurements)) for stage in self.stages)
        return replace(self, stages=stages, baselines=bare(self.baselines))


def measurement(
    name: str,
    interval: Interval,
    *,
    unit: str = "share",
    higher_is_better: bool = True,
    chance: float | None = None,
    numerators: Values = (),
    denominators: Values | None = None,
) -> Measurement:
    """A measurement from an interval and the items behind it; without `denominators` the value is their mean."""
    top = tuple(float(value) for value in numerators)
    bottom = (1.0,) * len(top) if denominators is None else tuple(float(value) for value in denominators)
    if len(top) != len(bottom):
        raise ValueError(f"{name}: {len(top)} numerators, {len(bottom)} denominators")
    finite = math.isfinite(interval.low) and math.isfinite(interval.high)
    return Measurement(
        name=name,
        value=interval.value,
        low=interval.low if finite else None,
        high=interval.high if finite else None,
        n=interval.n,
        unit=unit,
        higher_is_better=higher_is_better,
        chance=chance,
        numerators=top,
        denominators=bottom,
    )


def compare(before: Measurement, after: Measurement, *, stages: tuple[str, str]) -> Comparison:
    """What changed between two stages, with the verdict that its interval allows."""
    difference = after.value - before.value
    low = high = None
    if before.numerators and before.denominators == after.denominators:
        paired = paired_ratio((before.numerators, before.denominators), (after.numerators, after.denominators))
        outcome = verdict(paired, higher_is_better=after.higher_is_better)
        if math.isfinite(paired.low):
            low, high = paired.low, paired.high
    elif before.low is None or before.high is None or after.low is None or after.high is None:
        outcome = "no difference"
    else:
        outcome = "no difference"
        if after.low > before.high or after.high < before.low:
            outcome = "helped" if (difference > 0) == after.higher_is_better else "hurt"
    return Comparison(
        name=after.name, before=stages[0], after=stages[1], difference=difference, low=low, high=high, verdict=outcome
    )
