"""A trial: what a milestone's ``run`` is given to measure with, and what it leaves behind.

::

    def run(trial: Trial) -> None:
        letters = read(trial.file("text/onegin/evgeny.txt"))
        trial.measure("vowels", count(letters))
        for seed in trial.each_seed():
            if trial.ablated("dependence"):
                letters = shuffled(letters, seed)
            trial.measure("dispersion", dispersion(letters))
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from underhood.core.figures import Figure, Grid, Plot, Series
from underhood.core.milestone import Claim, Milestone, Scale
from underhood.core.verdicts import Estimate, Verdict, estimate

T = TypeVar("T")
Listener = Callable[[float, str], None]
"""Told the share that is done (0 to 1) and what is being done."""


class Trial:
    """One run of a milestone at one scale.

    Args:
        seeds: the seeds that `each_seed` goes through.
        removed: keys of the ablations in force.
        data: folder with the data that no package brings; None if there is none.
        listener: hears of progress.
    """

    def __init__(
        self,
        milestone: Milestone,
        scale: Scale,
        *,
        seeds: Sequence[int] = (0,),
        removed: Collection[str] = (),
        data: Path | None = None,
        listener: Listener | None = None,
    ):
        self.milestone, self.scale, self.seeds = milestone, scale, tuple(seeds)
        self.removed, self.folder, self._listener = frozenset(removed), data, listener
        self.figures: list[Figure] = []
        self.notes: list[str] = []
        self.oracles: list[tuple[str, bool, str]] = []
        self.missing: dict[str, str] = {}
        self.digests: dict[str, str] = {}
        self._values: dict[str, list[float]] = {}
        self._intervals: dict[str, tuple[float, float]] = {}
        self._span = (0.0, 1.0)
        self._last = 0.0
        needed = {key for ablation in milestone.ablations if ablation.key in self.removed for key in ablation.breaks}
        self._wanted = needed or {claim.key for claim in milestone.claims if self._judged(claim.key)}

    def by_scale(self, *, smoke: T, report: T) -> T:
        """The setting for this scale: ``steps = trial.by_scale(smoke=200, report=2000)``."""
        return report if self.scale == "report" else smoke

    def ablated(self, key: str) -> bool:
        """Whether the idea `key` is taken away in this run."""
        assert key in {ablation.key for ablation in self.milestone.ablations}, f"no ablation {key}"
        return key in self.removed

    @property
    def is_ablation(self) -> bool:
        """Whether anything is taken away: such a run needs no figures and no oracles."""
        return bool(self.removed)

    def wants(self, *keys: str) -> bool:
        """Whether any of these claims is judged in this run; guards what is costly to measure."""
        unknown = set(keys) - {claim.key for claim in self.milestone.claims}
        assert not unknown, f"no claim {unknown}"
        return bool(self._wanted & set(keys))

    def each_seed(self) -> Iterator[int]:
        """The seeds, one after the other; progress inside the loop is a share of this seed's."""
        return self.each(self.seeds, "seed")

    def each(self, items: Iterable[T], what: str = "") -> Iterator[T]:
        """The items, with progress. Loops may be nested: an inner one fills its item's share of the outer."""
        listed = list(items)
        start, end = self._span
        for index, item in enumerate(listed):
            self._span = (
                start + (end - start) * index / len(listed),
                start + (end - start) * (index + 1) / len(listed),
            )
            shown = "" if len(listed) < 2 else f" {index + 1} of {len(listed)}"
            self.progress(0.0, f"{what}{shown}".strip())
            yield item
            self.progress(1.0, f"{what}{shown}".strip())
        self._span = (start, end)

    def progress(self, share: float, what: str = "") -> None:
        """Tells how far the current loop's item has come, 0 to 1; cheap enough to call at every step."""
        now = time.monotonic()
        if self._listener is not None and (now - self._last > 0.05 or share in (0.0, 1.0)):
            start, end = self._span
            self._listener(start + (end - start) * min(max(share, 0.0), 1.0), what)
            self._last = now

    def measure(self, key: str, value: float, *, interval: tuple[float, float] | None = None) -> None:
        """Records one value of a claim; call it once per seed where the value depends on the seed.

        Args:
            interval: a 95 % interval to judge with, where the one over seeds is not the right one.
        """
        self.milestone.claim(key)
        self._values.setdefault(key, []).append(float(value))
        if interval is not None:
            self._intervals[key] = (float(interval[0]), float(interval[1]))

    def skip_claim(self, key: str, why: str) -> None:
        """Says that a claim can't be measured here, and why: ``"needs MNIST (vision/mnist below --data)"``."""
        self.milestone.claim(key)
        self.missing[key] = why

    def oracle(self, name: str, agrees: bool, detail: str = "") -> None:
        """Records whether someone else's implementation, a closed form or an exact count agrees with ours."""
        self.oracles.append((name, bool(agrees), detail))

    def figure(self, figure: Figure) -> None:
        """Adds a figure; in an ablated run nothing is drawn."""
        if not self.is_ablation:
            self.figures.append(figure)

    def plot(self, *, series: Iterable[Series], **words: Any) -> None:
        """Adds a plot of the series; the other arguments are the fields of `figures.Plot`."""
        self.figure(Plot(series=tuple(series), **words))

    def table(self, *, rows: Iterable[tuple[str | float, ...]], **words: Any) -> None:
        """Adds a small table; the other arguments are the fields of `figures.Grid`."""
        self.figure(Grid(rows=tuple(rows), **words))

    def note(self, text: str) -> None:
        """Adds a sentence for the reader of the result."""
        if not self.is_ablation:
            self.notes.append(text)

    def file(self, path: str) -> Path | None:
        """A data file (or folder) below the folder given by ``--data``, or None; files' digests go into the result."""
        file = None if self.folder is None else self.folder / path
        if file is None or not file.exists():
            return None
        if file.is_file():
            with file.open("rb") as stream:
                self.digests[path] = hashlib.file_digest(stream, "sha256").hexdigest()
        return file

    def estimate(self, key: str) -> Estimate | None:
        """What was measured for a claim so far, with its 95 % interval."""
        values = self._values.get(key)
        if not values:
            return None
        claim = self.milestone.claim(key)
        return estimate(values, claim.summary, self._intervals.get(key), fixed=claim.deterministic)

    def verdict(self, key: str) -> Verdict | None:
        """The verdict on a claim; None where this scale does not judge it.

        AssertionError if ``run`` neither measured a claim nor said why it can't be.
        """
        if not self._judged(key):
            return None
        estimated = self.estimate(key)
        if estimated is None:
            assert key in self.missing, f"{self.milestone.stem}: run() left the claim {key} open"
            return "not measurable here"
        return self.milestone.claim(key).judge(estimated)

    def _judged(self, key: str) -> bool:
        return self.scale == "report" or self.milestone.claim(key).scale == "smoke"

    def as_json(self) -> list[dict[str, Any]]:
        """Every claim with its values, interval and verdict, as a result file holds it."""
        claims = []
        for claim in self.milestone.claims:
            if self.is_ablation and claim.key not in self._wanted:
                continue
            verdict, estimated = self.verdict(claim.key), self.estimate(claim.key)
            if verdict is None:
                why = "judged at report scale only"
            else:
                why = "" if estimated is not None else self.missing[claim.key]
            claims.append(claim_json(claim, None if verdict is None else estimated, verdict, why))
        return claims


def claim_json(claim: Claim, estimated: Estimate | None, verdict: Verdict | None, why: str = "") -> dict[str, Any]:
    """One claim as a result file holds it: what it says, its rule, what was measured, and the verdict."""
    row: dict[str, Any] = {"key": claim.key, "statement": claim.statement, "headline": claim.headline}
    row |= {"unit": claim.unit, "topic": claim.topic}
    if claim.paper is not None:
        row |= {"paper": claim.paper.value, "evidence": claim.paper.evidence, "where": claim.paper.where}
    row |= {"rule": claim.rule.words, "how": claim.summary, "deterministic": claim.deterministic}
    if estimated is not None:
        row |= {"middle": _json(estimated.middle), "low": _json(estimated.low), "high": _json(estimated.high)}
        row |= {"spread": _json(estimated.spread), "values": [_json(value) for value in estimated.values]}
    row["verdict"] = verdict
    return row | ({"why": why} if why else {})


def _json(value: float | None) -> float | None:
    """JSON has no infinities and no NaN."""
    return value if value is not None and math.isfinite(value) else None
