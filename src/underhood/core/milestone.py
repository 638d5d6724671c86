"""Milestone: a question, an idea, and claims whose thresholds are fixed before anything is measured.

A milestone is a folder of `underhood.path`: ``milestone.toml`` (papers, claims, ablations), ``idea.md`` (the prose) and
``run.py`` (the code that measures the claims, see `underhood.core.trial`). Reading one imports no code.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from underhood.core.verdicts import Estimate, Rule, Summary, Verdict, explained, judge, parse_rule

T = TypeVar("T")

Evidence = Literal["verified", "recalled", "computed"]
"""How a paper's number got here: read in the paper; from memory, unchecked; computed from what the paper prints."""

Scale = Literal["smoke", "report"]
SCALES: tuple[Scale, ...] = ("smoke", "report")

EXPECTED: tuple[Verdict, ...] = ("does not hold here", "source's misprint", "too small to show here")
"""Verdicts that a milestone can know in advance and give a reason for."""

SECTIONS = {"What was hard": "hard", "Errata": "errata", "Where next": "then"}
"""Headings of ``idea.md`` after the idea itself, and the fields that they fill."""


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A source, as one would cite it; `link` opens it (a DOI, arXiv, the author's page)."""

    authors: str
    year: int
    title: str
    link: str


@dataclass(frozen=True, kw_only=True)
class Printed:
    """A number as a source prints it, how we know it, and where it is printed (``"Table 1"``)."""

    value: float | str
    evidence: Evidence
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence that a measurement can refute.

    Attributes:
        key: its name in the code: ``trial.measure(key, value)``.
        statement: what is claimed, in words that a newcomer follows.
        rule: the threshold, fixed before anything is measured.
        headline: one of the paper's main claims; the milestone's verdict is that of its headline claims.
        paper: the source's number, if it has one.
        unit: of the measured value, e.g. ``"bits per letter"``; empty for a count or ratio.
        summary: how the values over seeds become one number.
        deterministic: the value does not depend on the seed, so that no interval is needed.
        scale: ``"report"`` where smoke scale is too small to judge; it is then only measured there.
        topic: which of the milestone's topics it belongs to; empty for all.
        expected: known not to hold here, and published as such: ``"does not hold here"``, ``"source's misprint"`` or
            ``"too small to show here"``; ``idea.md`` says why.
    """

    key: str
    statement: str
    rule: Rule
    headline: bool = False
    paper: Printed | None = None
    unit: str = ""
    summary: Summary = "mean"
    deterministic: bool = False
    scale: Scale = "smoke"
    topic: str = ""
    expected: Verdict | None = None

    def judge(self, estimated: Estimate) -> Verdict:
        """The verdict on what was measured, by the rule and the reason that is known for a failure."""
        return explained(judge(self.rule, estimated), self.expected)


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """The idea taken away: the claims named in `breaks` must hold with it and fail without it.

    ``run`` asks ``trial.ablated(key)``. Both runs happen at smoke scale with the same seeds.
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
    """One step of the path, as its folder describes it.

    Attributes:
        stem: the name of its folder, its results and its page, ``p1913_markov``.
        topics: ids of the topics (`underhood.curriculum.topics`) that it covers, the main one first.
        question: the reader's question that it answers; `asks` are others, as a newcomer would type them.
        idea: the explanation, in Markdown with TeX.
        code: the lines that are the idea: ``"underhood.models.ngram:NGram._discount"``.
        ablations: what is removed, and which claims must then fail.
        hard: what was hard to get right, or what a copy of the paper must decide by itself.
        errata: what sources say that is not so.
        then: where to go on, beside the topics that need this one.
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
    seeds: Seeds = Seeds()
    hard: str = ""
    errata: tuple[str, ...] = ()
    then: str = ""

    def claim(self, key: str) -> Claim:
        """The claim with that key (KeyError if there is none)."""
        return {claim.key: claim for claim in self.claims}[key]

    def problems(self) -> list[str]:
        """What contradicts itself in this description; empty if nothing does."""
        keys = [claim.key for claim in self.claims]
        problems = [f"two claims are called {key}" for key in {key for key in keys if keys.count(key) > 1}]
        problems += [
            f"{claim.key}: {claim.topic} is none of its topics"
            for claim in self.claims
            if claim.topic not in ("", *self.topics)
        ]
        for claim in self.claims:
            if claim.expected not in (None, *EXPECTED):
                problems.append(f"{claim.key}: expected is one of {', '.join(EXPECTED)}; got {claim.expected}")
            if claim.expected == "source's misprint" and not (self.errata and claim.paper):
                problems.append(f"{claim.key}: a misprint needs the number as printed, and a line under Errata")
            if claim.expected is not None and not self.hard:
                problems.append(f"{claim.key}: What was hard has to say why it does not hold")
        headline = [claim.topic for claim in self.claims if claim.headline]
        if not headline:
            problems.append("no headline claim: mark the paper's main claim")
        if any(headline.count(topic) > 2 for topic in headline):
            problems.append("more than two headline claims of one topic")
        if not self.ablations:
            problems.append("no ablation: take the idea away and say which claim fails")
        for ablation in self.ablations:
            known = [self.claim(key) for key in ablation.breaks if key in keys]
            problems += [f"ablation {ablation.key} breaks no claim {key}" for key in ablation.breaks if key not in keys]
            if not ablation.breaks:
                problems.append(f"ablation {ablation.key} breaks nothing")
            problems += [
                f"ablation {ablation.key}: {claim.key} is not judged at smoke scale"
                for claim in known
                if claim.scale != "smoke"
            ]
        return problems


def read_milestone(folder: Path) -> Milestone:
    """The milestone that a folder describes, from ``milestone.toml`` and ``idea.md``.

    Raises:
        ValueError: a file is not what it should be; the message names it.
    """
    toml, prose = folder / "milestone.toml", folder / "idea.md"
    try:
        table = tomllib.loads(toml.read_text(encoding="utf-8"))
        parts: dict[str, Any] = {
            "papers": tuple(_record(Paper, paper) for paper in table.pop("papers", ())),
            "claims": tuple(_claim(claim) for claim in table.pop("claims")),
            "ablations": tuple(_record(Ablation, ablation) for ablation in table.pop("ablations", ())),
            "minutes": _record(Minutes, table.pop("minutes")),
            "seeds": _record(Seeds, table.pop("seeds", {})),
        }
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{toml}: {error}") from error
    try:
        return _record(Milestone, table | parts | _sections(prose.read_text(encoding="utf-8")) | {"stem": folder.name})
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{folder}: {error}") from error


def _claim(table: dict[str, Any]) -> Claim:
    paper = {"paper": _record(Printed, table["paper"])} if "paper" in table else {}
    return _record(Claim, table | paper | {"rule": parse_rule(table["rule"])})


def _record(kind: type[T], table: Mapping[str, Any]) -> T:
    """A record of plain values; TypeError for a key that it does not have."""
    known = {field.name for field in fields(kind)}  # pyright: ignore[reportArgumentType]
    if unknown := set(table) - known:
        raise TypeError(f"{kind.__name__.lower()} has no {', '.join(sorted(unknown))}; it has {', '.join(known)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in table.items()})


def _sections(text: str) -> dict[str, Any]:
    """Title, idea and the later sections of ``idea.md``."""
    head, *later = re.split(r"^## ", text, flags=re.MULTILINE)
    title, _, idea = head.strip().partition("\n")
    if not title.startswith("# "):
        raise ValueError("idea.md begins with its title, a line '# …'")
    sections: dict[str, Any] = {"title": title[2:].strip(), "idea": idea.strip()}
    for section in later:
        heading, _, words = section.partition("\n")
        if heading.strip() not in SECTIONS:
            raise ValueError(f"idea.md has a section {heading.strip()!r}, expected {', '.join(SECTIONS)}")
        sections[SECTIONS[heading.strip()]] = words.strip()
    if "errata" in sections:
        items = re.split(r"^- ", sections["errata"], flags=re.MULTILINE)[1:]
        sections["errata"] = tuple(" ".join(item.split()) for item in items)
    return sections
