"""Smoothing before Kneser-Ney: add-k and Witten-Bell, for milestones and comparisons that need what was improved on.

The n-grams of one order are one sorted array of numbers, an n-gram's number being its symbols read as digits of base V.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Counts:
    """How often each n-gram of one order occurs in a text.

    Attributes:
        order, size: n, and V, the number of different symbols.
        keys, counts: the n-grams that occur, as ascending numbers, and how often.
        histories, totals, kinds: their first n − 1 symbols, how often something followed, how many different.
    """

    order: int
    size: int
    keys: Ints
    counts: Ints
    histories: Ints
    totals: Ints
    kinds: Ints

    def of(self, keys: Ints) -> Ints:
        """Counts of any n-grams; 0 for those that do not occur."""
        return _find(self.keys, self.counts, keys)

    def after(self, keys: Ints) -> tuple[Ints, Ints]:
        """For the histories of any n-grams: how often something followed, and how many different things."""
        return _find(self.histories, self.totals, keys // self.size), _find(
            self.histories, self.kinds, keys // self.size
        )


def numbers(text_N: Ints, order: int, size: int) -> Ints:
    """Every n-gram of a text as one number, its last symbol the last digit.

    Raises:
        ValueError: such numbers would not fit in 62 bits.
    """
    if size**order >= 2**62:
        raise ValueError(f"{order}-grams of {size} symbols do not fit in 62 bits")
    return np.lib.stride_tricks.sliding_window_view(text_N, order) @ (size ** np.arange(order - 1, -1, -1))


def count(text_N: Ints, order: int, size: int) -> Counts:
    """Counts the n-grams of a text of symbols 0 to size − 1."""
    keys, counts = np.unique(numbers(text_N, order, size), return_counts=True)
    histories, group, kinds = np.unique(keys // size, return_inverse=True, return_counts=True)
    totals = np.bincount(group, weights=counts).astype(np.int64)
    return Counts(order, size, keys, counts, histories, totals, kinds)


def add_k(counts: Counts, text_N: Ints, k: float) -> Floats:
    """p = (c(h w) + k) / (c(h) + k V) of every symbol of a text that has n − 1 symbols before it (Lidstone)."""
    keys = numbers(text_N, counts.order, counts.size)
    return (counts.of(keys) + k) / (counts.after(keys)[0] + k * counts.size)


def witten_bell(counted: list[Counts], text_N: Ints) -> Floats:
    """Witten & Bell's interpolation (1991) of every symbol of a text that has n − 1 symbols before it.

    p(w | h) = (c(h w) + T(h) p(w | h')) / (c(h) + T(h)) from 1 / V upwards, T(h) the number of different symbols seen
    after h. A history that was never seen leaves the decision to the shorter one.

    Args:
        counted: the counts of orders 1, 2, … n.
    """
    n = len(counted)
    p_N = np.full(len(text_N) - n + 1, 1 / counted[0].size)
    for counts in counted:
        keys = numbers(text_N, counts.order, counts.size)[n - counts.order :]
        total, kinds = counts.after(keys)
        p_N = np.where(total > 0, (counts.of(keys) + kinds * p_N) / np.maximum(total + kinds, 1), p_N)
    return p_N


def _find(keys: Ints, values: Ints, wanted: Ints) -> Ints:
    index = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[index] == wanted, values[index], 0)
