"""Confidence intervals: Wilson for proportions, bootstrap for means and ratios, paired differences.

Proportions get Wilson's score interval (1927), which stays sensible at 0 %, at 100 % and with few trials. Means and
ratios get the percentile bootstrap (Efron 1979): draw as many items as there are, with replacement, many times, and
read the interval off the sorted results. The unit drawn is the one sampled in the first place: a document for bits per
byte, a question for accuracy — never a token, because the tokens of one document rise and fall together.

Two models measured on the same items are compared item by item: the bootstrap draws the same items for both, so that
what is hard for both cancels out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["helped", "no difference", "hurt"]
Values = Sequence[float] | NDArray[np.floating] | NDArray[np.integer]

RESAMPLES = 4000
"""Bootstrap draws: the ends of a 95 % interval rest on the 100 smallest and the 100 largest."""


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Attributes:
        value: the estimate itself.
        low, high: ends of the interval; infinite where a single item can't tell.
        n: items that it rests on (trials, documents, pairs).
        level: confidence, 0.95 for 95 %.
    """

    value: float
    low: float
    high: float
    n: int
    level: float = 0.95

    def excludes(self, value: float) -> bool:
        """True when `value` is outside the interval, e.g. the 25 % of a guess among four."""
        return value < self.low or value > self.high


def wilson(successes: float, trials: int, *, level: float = 0.95) -> Interval:
    """Wilson's score interval for a proportion. `successes` may be fractional (credit shared among ties).

    Raises:
        ValueError: no trials, or successes outside 0 to trials.
    """
    if trials < 1 or not 0 <= successes <= trials:
        raise ValueError(f"a proportion needs 0 to {trials} successes in at least one trial, got {successes}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    p = successes / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z / (1 + z * z / trials) * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    low = 0.0 if successes == 0 else max(0.0, middle - half)
    high = 1.0 if successes == trials else min(1.0, middle + half)
    return Interval(p, low, high, trials, level)


def bootstrap_mean(values: Values, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0) -> Interval:
    """The mean of independent items."""
    return bootstrap_ratio(values, np.ones(len(values)), level=level, resamples=resamples, seed=seed)


def bootstrap_ratio(
    numerators: Values, denominators: Values, *, level: float = 0.95, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Σ numerators / Σ denominators over items drawn together, e.g. bits and bytes of each document."""
    top_N, bottom_N = _arrays(numerators, denominators)
    if bottom_N.sum() <= 0:
        raise ValueError("the denominators of a ratio must sum to more than zero")
    return _percentile(lambda at: _ratio(top_N, bottom_N, at), len(top_N), level, resamples, seed)


def paired_ratio(
    before: tuple[Values, Values],
    after: tuple[Values, Values],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Ratio after − ratio before, each (numerators, denominators) over the same items, e.g. nats and bytes."""
    top_N, bottom_N = _arrays(*before)
    top_after_N, bottom_after_N = _arrays(*after)
    _arrays(top_N, top_after_N)
    return _percentile(
        lambda at: _ratio(top_after_N, bottom_after_N, at) - _ratio(top_N, bottom_N, at),
        len(top_N),
        level,
        resamples,
        seed,
    )


def verdict(difference: Interval, *, higher_is_better: bool) -> Verdict:
    """What the interval of a paired difference (after − before) allows one to say."""
    if not difference.excludes(0.0):
        return "no difference"
    return "helped" if (difference.low > 0) == higher_is_better else "hurt"


def _arrays(first: Values, second: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    one_N, two_N = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one_N.ndim != 1 or one_N.shape != two_N.shape or not len(one_N):
        raise ValueError(f"expected two rows of as many items, at least one, got {one_N.shape} and {two_N.shape}")
    return one_N, two_N


def _ratio(top_N: NDArray[np.float64], bottom_N: NDArray[np.float64], at: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):  # a draw of nothing but empty items says nothing
        return top_N[at].sum(axis=-1) / bottom_N[at].sum(axis=-1)


def _percentile(
    statistic: Callable[[NDArray[np.int64]], NDArray[np.float64]], items: int, level: float, resamples: int, seed: int
) -> Interval:
    value = float(statistic(np.arange(items)))
    if items == 1:
        return Interval(value, -math.inf, math.inf, 1, level)
    drawn_R = np.concatenate([statistic(at) for at in _draws(items, resamples, seed)])
    low, high = np.nanquantile(drawn_R, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high), items, level)


def _draws(items: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Item numbers (some resamples, items), a few million at a time."""
    generator = np.random.default_rng(seed)
    step = max(1, 2_000_000 // items)
    for first in range(0, resamples, step):
        yield generator.integers(0, items, size=(min(step, resamples - first), items))
