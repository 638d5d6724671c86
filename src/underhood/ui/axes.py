"""Chart axes: positions in percent and labelled ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from underhood.ui.formatting import compact, nice_ticks, tick_label


@dataclass(frozen=True)
class Axis:
    """A linear or logarithmic axis: maps a value to its position, 0 to 100 percent from the low end."""

    low: float
    high: float
    log: bool

    def at(self, value: float) -> float:
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return round(min(max(100 * (value - low) / (high - low), -2), 102), 2)

    def ticks(self) -> list[tuple[float, str]]:
        if not self.log:
            ticks = nice_ticks(self.low, self.high, 4)
            step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
            return [(self.at(tick), _tick(tick, step)) for tick in ticks]
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        steps = (1,) if last - first > 2 else (1, 2, 5)
        ladder = [base * 10.0**power for power in range(first, last + 1) for base in steps]
        inside = [value for value in ladder if self.low * 0.999 <= value <= self.high * 1.001]
        every = max(1, math.ceil(len(inside) / 6))
        return [(self.at(value), compact(value)) for value in inside[::every]]


def axis(values: Sequence[float], log: bool, *, pad: float = 0.04, zero: bool = False) -> Axis:
    """An axis that holds the values; one with no spread gets some."""
    finite = [value for value in values if math.isfinite(value) and (value > 0 or not log)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    if zero and not log:
        low, high = min(low, 0.0), max(high, 0.0)
    if low == high:
        low, high = (low / 2, high * 2) if log else (low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2)
    if log:
        factor = (high / low) ** pad
        return Axis(low / factor, high * factor, True)
    room = pad * (high - low)
    return Axis(0.0 if zero and low == 0 else low - room, high + room, False)


def _tick(value: float, step: float) -> str:
    return compact(value) if abs(value) >= 1e5 or 0 < abs(step) < 1e-3 else tick_label(value, step)
