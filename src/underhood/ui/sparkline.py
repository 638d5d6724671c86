"""Sparklines: a row of numbers as bars of one character each (Tufte 2006)."""

from __future__ import annotations

import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], low: float | None = None, high: float | None = None) -> str:
    """One bar for each value; a value that is not finite is a blank.

    Args:
        low, high: the values of the lowest and of the full bar; None means the least and the largest of `values`.
    """
    finite = [value for value in values if math.isfinite(value)]
    low = min(finite, default=0.0) if low is None else low
    high = max(finite, default=1.0) if high is None else high
    span = high - low
    return "".join(_bar((value - low) / span if span > 0 else 0.0) if math.isfinite(value) else " " for value in values)


def _bar(share: float) -> str:
    return BARS[min(max(int(share * len(BARS)), 0), len(BARS) - 1)]
