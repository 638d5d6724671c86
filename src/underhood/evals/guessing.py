"""Entropy bounds from Shannon's guessing game: how many guesses the next letter takes (Shannon 1951).

A reader who knows the text so far guesses the next letter until it is right. Another reader with the same mind could
restore the text from the numbers of guesses alone, so these carry all of its information. With q(i) the share of
letters that took i guesses, the entropy F per letter, given the known text, is bounded by (sections 5 and 6)::

    Σ i (q(i) − q(i+1)) log2 i  ≤  F  ≤  −Σ q(i) log2 q(i)

for a reader who always guesses the likeliest letter next. The upper bound holds for any reader.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from underhood.evals.intervals import Interval


def ranks(scores_NV: ArrayLike, letters_N: ArrayLike) -> NDArray[np.int64]:
    """How many guesses each letter takes somebody who guesses in falling order of score (ties: lower id first)."""
    scores = np.asarray(scores_NV)
    letters = np.asarray(letters_N)
    own = np.take_along_axis(scores, letters[:, None], axis=1)
    before = (scores == own) & (np.arange(scores.shape[1]) < letters[:, None])
    return 1 + ((scores > own) | before).sum(axis=1)


def shares(guesses: Sequence[int] | NDArray[np.int64], symbols: int = 27) -> NDArray[np.float64]:
    """q(1) to q(symbols): which part of the letters took that many guesses (ValueError for none)."""
    counted = np.asarray(guesses, dtype=np.int64)
    if not len(counted) or counted.min() < 1 or counted.max() > symbols:
        raise ValueError(f"guesses are one or more numbers from 1 to {symbols}")
    return np.bincount(counted - 1, minlength=symbols) / len(counted)


def bounds(q: ArrayLike) -> tuple[float, float]:
    """Shannon's lower and upper bound, bits per letter, from shares or counts of letters that took 1, 2, … guesses.

    The shares are put in falling order first, as those of an ideal guesser are: in a few hundred letters a later guess
    may be right more often than an earlier one by chance, and the lower bound means nothing then.
    """
    shares_V = -np.sort(-np.asarray(q, dtype=np.float64))
    shares_V = shares_V / shares_V.sum()
    guess_V = np.arange(1, len(shares_V) + 1)
    lower = (guess_V * (shares_V - np.append(shares_V[1:], 0.0)) * np.log2(guess_V)).sum()
    some = shares_V[shares_V > 0]
    return float(lower), float(0.0 - (some * np.log2(some)).sum())


def bounds_intervals(
    guesses: Sequence[int] | NDArray[np.int64], *, symbols: int = 27, resamples: int = 2000, seed: int = 0
) -> tuple[Interval, Interval]:
    """Both bounds with 95 % intervals, by drawing the letters again with replacement.

    Few letters miss rare ranks, so both bounds come out too low; a hundred letters are off by about a tenth of a bit.
    """
    counted = np.asarray(guesses, dtype=np.int64)
    lower, upper = bounds(shares(counted, symbols))
    rng = np.random.default_rng(seed)
    drawn = np.array([bounds(shares(rng.choice(counted, len(counted)), symbols)) for _ in range(resamples)])
    (low_from, up_from), (low_to, up_to) = np.percentile(drawn, (2.5, 97.5), axis=0)
    count = len(counted)
    return Interval(lower, float(low_from), float(low_to), count), Interval(upper, float(up_from), float(up_to), count)


def conditional_entropy(ids_N: NDArray[np.int64], n: int, symbols: int = 27) -> float:
    """F_N of a text by its own counts: bits per symbol given the n − 1 symbols before (section 2).

    Sinks towards zero once the text is too short to hold its n-grams often: an entropy of the text, not of its source.
    """

    def block(size: int) -> float:
        if size == 0:
            return 0.0
        windows = np.lib.stride_tricks.sliding_window_view(ids_N, size) @ (symbols ** np.arange(size))
        p = np.unique(windows, return_counts=True)[1] / len(windows)
        return float(-(p * np.log2(p)).sum())

    return block(n) - block(n - 1)
