"""Comparison of two groups of numbers by rank."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def ranked_above(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """The share of pairs in which the first group's number is the larger one, ties counting half: the area under the
    ROC curve (Mann and Whitney 1947)."""
    n, m = len(first), len(second)
    ranks = rankdata(np.concatenate([first, second]))[:n]
    return float((ranks.sum() - n * (n + 1) / 2) / (n * m))
