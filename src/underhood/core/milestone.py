"""What a milestone of the path is: a question, an idea, and claims whose thresholds stand in the code beforehand.

A file of `underhood.path` holds one `Milestone` — pure data, read without running the file — and a function
``run(trial)`` that measures its claims (see `underhood.core.trial`). The verdict on a claim is computed here from the
measured values and the rule that the claim was written with; nobody writes a verdict.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

Evidence = Literal["verified", "recalled", "computed"]
"""How a paper's number got here: read in the paper; from memory, unchecked; computed from what the paper prints."""

Scale = Literal["smoke", "report"]
SCALES: tuple[Scale, ...] = ("smoke", "report")

Verdict = Literal["exact", "holds", "holds in shape", "not measurable here", "does not hold here"]
VERDICTS: tuple[Verdict, ...] = ("exact", "holds", "holds in shape", "not measurable here", "does not hold here")
"""From the best to the worst; the worst of its claims is a milestone's."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A source, as one would cite it; `link` opens it (a DOI, arXiv, the author's page)."""

    authors: str
    year: int
    title: str
    link: str


@dataclass(frozen=True)
class Printed:
    """A number as a source prints it, how we know, and where it stands there (``"Table 1"``)."""

    value: float | str
    evidence: Evidence
    where: str = ""


@dataclass(frozen=True)
class Exactly:
    """Every measured value is `value`, up to `within`: counts, identities, parity with an oracle. Verdict: exact."""

    value: float
    within: float = 0.0

    @property
    def words(self) -> str:
        return f"exactly {self.value:,.12g}" if not self.within else f"{self.value:,.12g} within {self.within:.3g}"


@dataclass(frozen=True)
class Between:
    """The middle of the measured values lies from `low` to `high`; use `at_least`, `at_most` and `near` to make one.

    Attributes:
        shape: a wider range that still shows what the paper saw, only less of it. Verdict: holds in shape.
        null: the value that means no effect (0 for a difference, 1 for a ratio). If the 95 % interval over seeds
            contains it, or there are too few seeds for an interval, the verdict is "not measurable here".
    """

    low: float = -math.inf
    high: float = math.inf
    shape: tuple[float, float] | None = None
    null: float | None = None

    @property
    def words(self) -> str:
        return _range_words(self.low, self.high) + (f"; in shape {_range_words(*self.shape)}" if self.shape else "")


def at_least(low: float, *, shape: float | None = None, null: float | None = None) -> Between:
    """Holds from `low` up; holds in shape from `shape` up."""
    return Between(low, math.inf, None if shape is None else (shape, math.inf), null)


def at_most(high: float, *, shape: float | None = None, null: float | None = None) -> Between:
    """Holds up to `high`; holds in shape up to `shape`."""
    return Between(-math.inf, high, None if shape is None else (-math.inf, shape), null)


def near(value: float, within: float, *, shape: float | None = None, null: float | None = None) -> Between:
    """Holds within `within` of `value`; holds in shape within `shape` of it."""
    return Between(value - within, value + within, None if shape is None else (value - shape, value + shape), null)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence that a measurement can refute.

    Attributes:
        key: its name in the code: ``trial.measure(key, value)``.
        statement: what is claimed, in words a newcomer follows.
        judge: the rule, fixed before anything is measured.
        paper: the source's number, if it has one.
        unit: of the measured value, e.g. ``"bits per letter"``; empty for a count or ratio.
        middle: what is judged and shown of several seeds.
        scale: ``"report"`` where smoke scale is too small to judge; it is then only measured there.
        topic: which of its topics it belongs to; empty for all.
        aside: does not count towards the verdict on the milestone.
    """

    key: str
    statement: str
    judge: Exactly | Between
    paper: Printed | None = None
    unit: str = ""
    middle: Literal["mean", "median", "max", "min"] = "mean"
    scale: Scale = "smoke"
    topic: str = ""
    aside: bool = False


@dataclass(frozen=True)
class Ablation:
    """The idea taken away: then the claims named in `breaks` must fail, or they never depended on it.

    ``run`` asks ``trial.ablated(key)``. Ablated runs happen at smoke scale, in every result and in the tests.
    """

    key: str
    removes: str
    breaks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Minutes:
    """What a milestone costs its reader: reading, and running it on two CPU cores at each scale."""

    read: float
    smoke: float
    report: float


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """How many seeds each scale runs. A claim about a small effect needs five or more."""

    smoke: int = 1
    report: int = 1


@dataclass(frozen=True, kw_only=True)
class Milestone:
    """One step of the path. Everything here is data: no functions, no imports beyond this module.

    Attributes:
        stem: the file's name and that of its results, its page and its test, ``p1913_markov``.
        topics: ids of the topics (`underhood.curriculum.topics`) that it covers, the main one first.
        question: the reader's question that it answers; `asks` are others, as a newcomer would type them.
        idea: the explanation. Paragraphs are separated by an empty line; ``$…$`` is TeX, ``$$…$$`` an equation of its
            own, ```` `…` ```` code, ``*…*`` emphasis and ``[words](link)`` a link.
        code: the library lines that are the idea: ``"underhood.models.ngram:NGram._discount"``.
        ablations: what is removed, and which claims must then fail.
        hard: what was hard to get right, or what a copy of the paper must decide by itself.
        errata: what sources say that is not so.
        then: where to go on, beside the rows that need this one.
    """

    stem: str
    topics: tuple[str, ...]
    title: str
    year: int
    question: str
    asks: tuple[str, ...] = ()
    papers: tuple[Paper, ...] = ()
    idea: str
    code: tuple[str, ...] = ()
    claims: tuple[Claim, ...]
    ablations: tuple[Ablation, ...]
    minutes: Minutes
    seeds: Seeds = field(default_factory=Seeds)
    hard: str = ""
    errata: tuple[str, ...] = ()
    then: str = ""

    def claim(self, key: str) -> Claim:
        """The claim with that key (KeyError if there is none)."""
        return {claim.key: claim for claim in self.claims}[key]

    def problems(self) -> list[str]:
        """What contradicts itself in this description; empty if nothing does."""
        keys = [claim.key for claim in self.claims]
        found = [f"two claims are called {key}" for key in {key for key in keys if keys.count(key) > 1}]
        found += [
            f"{one.key}: {one.topic} is none of its topics"
            for one in self.claims
            if one.topic not in ("", *self.topics)
        ]
        if not self.ablations and any(not claim.aside for claim in self.claims):
            found.append("no ablation: take the idea away and say which claim fails")
        for ablation in self.ablations:
            found += [f"ablation {ablation.key} breaks no claim {key}" for key in ablation.breaks if key not in keys]
            if not ablation.breaks:
                found.append(f"ablation {ablation.key} breaks nothing")
            found += [
                f"ablation {ablation.key}: {key} is not judged at smoke scale"
                for key in ablation.breaks
                if key in keys and self.claim(key).scale != "smoke"
            ]
        return found


@dataclass(frozen=True)
class Measured:
    """The values of one claim, their middle and 95 % interval (None where seeds were too few to tell)."""

    values: tuple[float, ...]
    middle: float
    low: float | None = None
    high: float | None = None
    spread: float | None = None


def measured(values: Sequence[float], how: str = "mean", interval: tuple[float, float] | None = None) -> Measured:
    """Middle, 95 % interval and standard deviation of the values over seeds.

    The interval of a mean is Student's t; that of a median comes from order statistics (distribution-free, so it needs
    six values); extremes have none. `interval` replaces it, where the milestone knows a better one (a share, say).
    """
    ordered = sorted(values)
    count = len(ordered)
    middle = {"mean": statistics.fmean, "median": statistics.median, "max": max, "min": min}[how](ordered)
    spread = statistics.stdev(ordered) if count > 1 and all(map(math.isfinite, ordered)) else None
    if interval is None and count > 1 and spread is not None:
        if how == "mean":
            half = student_t(count - 1) * spread / math.sqrt(count)
            interval = (middle - half, middle + half)
        elif how == "median":
            rank = _median_rank(count)
            interval = None if rank is None else (ordered[rank], ordered[-1 - rank])
    low, high = interval or (None, None)
    return Measured(tuple(values), middle, low, high, spread)


def judge(rule: Exactly | Between, found: Measured) -> Verdict:
    """The verdict on measured values. Values that are not numbers never hold."""
    if not all(map(math.isfinite, found.values)):
        return "does not hold here"
    if isinstance(rule, Exactly):
        return "exact" if all(abs(v - rule.value) <= rule.within for v in found.values) else "does not hold here"
    if rule.null is not None:
        if found.low is None or found.high is None:
            return "not measurable here"
        if found.low <= rule.null <= found.high:
            return "not measurable here"
    if rule.low <= found.middle <= rule.high:
        return "holds"
    if rule.shape is not None and rule.shape[0] <= found.middle <= rule.shape[1]:
        return "holds in shape"
    return "does not hold here"


def worst(verdicts: Sequence[Verdict]) -> Verdict | None:
    """The least good of them; None of none."""
    return max(verdicts, key=VERDICTS.index) if verdicts else None


def student_t(freedom: int) -> float:
    """The 97.5 % quantile of Student's t with `freedom` degrees, to three decimals (tables; beyond 30 an expansion)."""
    if freedom <= len(_T975):
        return _T975[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


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
    return f"{low:,.4g} to {high:,.4g}"


# fmt: off
_T975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)
# fmt: on
