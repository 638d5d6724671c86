"""Slope of a power law: the exponent of y ~ x^k, fitted by least squares on log-log axes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def log_slope(x: ArrayLike, y: ArrayLike) -> float:
    """The exponent k; `x` and `y` are positive."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])
