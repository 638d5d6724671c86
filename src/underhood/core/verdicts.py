"""Verdict rules: thresholds fixed in advance, 95 % intervals over seeds, and what a measurement says about a claim."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Verdict = Literal[
    "exact",
    "holds",
    "holds in shape",
    "source's misprint",
    "inconclusive",
    "too small to show here",
    "not measurable here",
    "does not hold here",
]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
"""From the best to the worst."""
HELD: tuple[Verdict, ...] = VERDICTS[:3]
"""The verdicts that count as holding."""

Summary = Literal["mean", "median", "max", "min"]
"""How values over seeds become one number. With `max` and `min` the rule is about every single value."""


@dataclass(frozen=True)
class ExactRule:
    """Every measured value equals `value` within `within`: counts, identities, parity with an oracle."""

    value: float
    within: float = 0.0

    @property
    def words(self) -> str:
        return f"exactly {self.value:,.12g}" if not self.within else f"{self.value:,.12g} within {self.within:.3g}"


@dataclass(frozen=True)
class RangeRule:
    """The quantity is between `low` and `high`; `shape` is a wider range that still shows the paper's effect."""

    low: float = -math.inf
    high: float = math.inf
    shape: tuple[float, float] | None = None

    @property
    def words(self) -> str:
        return _range_words(self.low, self.high) + (f"; in shape {_range_words(*self.shape)}" if self.shape else "")


Rule = ExactRule | RangeRule


def parse_rule(fields: Mapping[str, float]) -> Rule:
    """The rule that a milestone file writes, one of five forms.

    ``exactly, within?``; ``at_least, shape?``; ``at_most, shape?``; ``near, within, shape?``; ``from, to``.

    Raises:
        ValueError: none of these.
    """
    given = dict(fields)
    shape = given.pop("shape", None)
    match given:
        case {"exactly": value, **rest} if shape is None and set(rest) <= {"within"}:
            return ExactRule(value, rest.get("within", 0.0))
        case {"at_least": low, **rest} if not rest:
            return RangeRule(low, math.inf, None if shape is None else (shape, math.inf))
        case {"at_most": high, **rest} if not rest:
            return RangeRule(-math.inf, high, None if shape is None else (-math.inf, shape))
        case {"near": value, "within": within, **rest} if not rest:
            wide = None if shape is None else (value - shape, value + shape)
            return RangeRule(value - within, value + within, wide)
        case {"from": low, "to": high, **rest} if not rest and shape is None:
            return RangeRule(low, high)
    raise ValueError(f"a rule is one of exactly, at_least, at_most, near and within, from and to; got {dict(fields)}")


@dataclass(frozen=True)
class Estimate:
    """The values of one claim, their summary and its 95 % interval (None where there is none).

    With `every`, the claim is about every single value: one counterexample refutes it.
    """

    values: tuple[float, ...]
    middle: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None
    every: bool = False


def estimate(
    values: Sequence[float], how: Summary = "mean", interval: tuple[float, float] | None = None, *, fixed: bool = False
) -> Estimate:
    """Summary, 95 % interval and standard deviation of the values over seeds.

    The interval of a mean is Student's t; that of a median comes from order statistics (it needs six values); for `max`
    and `min` it is the range of the values, because the rule is then about all of them.

    Args:
        interval: replaces it, where the milestone knows a better one (of a share, say).
        fixed: the value does not depend on seeds, so it is its own interval.
    """
    count = len(values)
    middle = {"mean": statistics.fmean, "median": statistics.median, "max": max, "min": min}[how](values)
    finite = all(map(math.isfinite, values))
    spread = statistics.stdev(values) if count > 1 and finite else None
    if interval is None and finite:
        if fixed or how in ("max", "min"):
            interval = (min(values), max(values))
        elif how == "mean" and spread is not None:
            half = _student_t(count - 1) * spread / math.sqrt(count)
            interval = (middle - half, middle + half)
        elif how == "median" and (rank := _median_rank(count)) is not None:
            ordered = sorted(values)
            interval = (ordered[rank], ordered[-1 - rank])
    low, high = interval or (None, None)
    return Estimate(tuple(values), middle, low, high, spread, every=how in ("max", "min"))


def judge(rule: Rule, estimated: Estimate) -> Verdict:
    """The verdict on an estimate: it holds only if the whole 95 % interval is on the right side of the threshold.

    Values that are not finite never hold. An interval that crosses the threshold, or too few seeds for an interval,
    is inconclusive.
    """
    if not all(map(math.isfinite, estimated.values)):
        return "does not hold here"
    if isinstance(rule, ExactRule):
        agrees = all(abs(value - rule.value) <= rule.within for value in estimated.values)
        return "exact" if agrees else "does not hold here"
    if estimated.low is None or estimated.high is None:
        return "inconclusive"
    if rule.low <= estimated.low and estimated.high <= rule.high:
        return "holds"
    low, high = rule.shape or (rule.low, rule.high)
    if low <= estimated.low and estimated.high <= high:
        return "holds in shape"
    return "does not hold here" if estimated.every or estimated.high < low or estimated.low > high else "inconclusive"


def explained(verdict: Verdict, expected: Verdict | None) -> Verdict:
    """The verdict, or the milder one that the milestone expects and gives a reason for.

    ``"source's misprint"`` replaces the verdict on a refuted number that the source itself contradicts. ``"too small to
    show here"`` replaces that on an interval which crosses the threshold, where the effect is smaller than these data
    can resolve. A claim that holds, or an effect that is refuted outright, keeps its verdict.
    """
    replaces = {"source's misprint": "does not hold here", "too small to show here": "inconclusive"}
    return expected if expected is not None and replaces.get(expected) == verdict else verdict


def worst(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The least good verdict; None of none."""
    return max(verdicts, key=VERDICTS.index, default=None)


def verdict_of(claims: Iterable[Mapping[str, Any]], topic: str | None = None) -> Verdict | None:
    """The verdict on a milestone: the worst of its headline claims. For a topic, of that topic's headline claims."""
    headline = [claim for claim in claims if claim["headline"] and claim["verdict"] is not None]
    if topic is not None:
        own = [claim for claim in headline if claim["topic"] == topic]
        headline = own or [claim for claim in headline if not claim["topic"]]
    return worst(claim["verdict"] for claim in headline)


def count_held(claims: Iterable[Mapping[str, Any]]) -> tuple[int, int]:
    """How many claims hold, and how many were judged."""
    judged = [claim["verdict"] for claim in claims if claim["verdict"] is not None]
    return sum(verdict in HELD for verdict in judged), len(judged)


def _student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, 0.975))


def _median_rank(count: int) -> int | None:
    """The r-th smallest and r-th largest value (counted from 0) hold the median between them in 95 % of samples."""
    tail, rank = 0.0, None
    for below in range(count // 2):
        tail += math.comb(count, below) / 2**count
        if 2 * tail > 0.05:
            break
        rank = below
    return rank


def _range_words(low: float, high: float) -> str:
    if math.isinf(low):
        return f"at most {high:,.4g}"
    if math.isinf(high):
        return f"at least {low:,.4g}"
    if f"{low:,.4g}" == f"{high:,.4g}":
        return f"{(low + high) / 2:,.6g} ± {(high - low) / 2:.2g}"
    return f"{low:,.4g} to {high:,.4g}"
