"""Content of a milestone's page, from its description and its latest result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from underhood.core.figures import figure_from_json
from underhood.core.milestone import Claim, Milestone
from underhood.core.verdicts import HELD, count_held
from underhood.curriculum import index, results
from underhood.curriculum.excerpts import excerpt
from underhood.curriculum.topics import ERAS, GRADES, Topic, after, topics
from underhood.ui.formatting import compact, duration, exact, minutes
from underhood.ui.svg_figures import draw

EVIDENCE = {
    "verified": "read in the source",
    "recalled": "from memory, not checked in the source",
    "computed": "computed from what the source prints",
}
HUES = {
    "exact": "good",
    "holds": "good",
    "holds in shape": "shape",
    "source's misprint": "misprint",
    "inconclusive": "unknown",
    "too small to show here": "faint",
    "not measurable here": "missing",
    "does not hold here": "bad",
    None: "open",
}
"""How a verdict looks; its word is always beside it."""
HOW = {"mean": "mean", "median": "median", "max": "every value", "min": "every value"}
"""What of several seeds is judged."""


def story(milestone: Milestone, places: Sequence[Path]) -> dict[str, Any]:
    """Everything the page of one milestone shows."""
    measured = results.measurements(milestone.stem, places)
    result = None if measured.main is None else measured.main[1]
    own = None if measured.beside is None else measured.beside[1]
    own_rows = {claim["key"]: claim for claim in own["claims"]} if own else {}
    known = {claim["key"]: claim for claim in result["claims"]} if result else {}
    figures = [draw(figure_from_json(figure)) for figure in result["figures"]] if result else []
    return {
        "m": milestone,
        "era": ERAS[topics()[milestone.topics[0]].section],
        "topics": [topics()[id] for id in milestone.topics],
        "grades": {topics()[id].grade: GRADES[topics()[id].grade] for id in milestone.topics},
        "verdict": None if result is None else result["verdict"],
        "held": None if result is None else count_held(result["claims"]),
        "failing": [claim for claim in known.values() if claim["verdict"] is not None and claim["verdict"] not in HELD],
        "hues": HUES,
        "claims": [
            _claim(claim, known.get(claim.key, {}), milestone)
            | {"own": _claim(claim, own_rows[claim.key], milestone) if claim.key in own_rows else None}
            for claim in milestone.claims
        ],
        "own": own,
        "published": measured.published is not None,
        "evidence": EVIDENCE,
        "ablations": _ablations(milestone, result),
        "figures": figures,
        "code": [_code(name) for name in milestone.code],
        "needs": _neighbours({need for id in milestone.topics for need in topics()[id].needs} - set(milestone.topics)),
        "next": _neighbours({topic.id for id in milestone.topics for topic in after(id)} - set(milestone.topics)),
        "result": result,
        "measured": None if result is None else _measured(result),
        "command": f"underhood reproduce {milestone.stem}" + (" --data DATA" if result and result["data"] else ""),
        "minutes": {"read": minutes(milestone.minutes.read), "report": minutes(milestone.minutes.report)},
    }


def interval(row: Mapping[str, Any]) -> str:
    """The 95 % interval of a claim's values in words; empty where there is none."""
    if row.get("low") is None or compact(row["low"]) == compact(row["high"]):
        return ""
    return f"{compact(row['low'])} to {compact(row['high'])}"


def _claim(claim: Claim, row: Mapping[str, Any], milestone: Milestone) -> dict[str, Any]:
    paper = None
    if claim.paper is not None:
        value = claim.paper.value
        paper = {"value": exact(value), "evidence": claim.paper.evidence,
                 "where": claim.paper.where}  # fmt: skip
    here = None if row.get("middle") is None else exact(row["middle"])
    return {
        "key": claim.key,
        "statement": claim.statement,
        "paper": paper,
        "here": here,
        "interval": interval(row),
        "seeds": len(row.get("values", ())),
        "unit": claim.unit,
        "rule": claim.rule.words,
        "how": HOW[claim.summary],
        "headline": claim.headline,
        "verdict": row.get("verdict"),
        "why": row.get("why", ""),
        "topic": topics()[claim.topic].title if claim.topic and len(milestone.topics) > 1 else "",
    }


def _ablations(milestone: Milestone, result: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    measured = {ablation["key"]: ablation for ablation in result["ablations"]} if result else {}
    told = []
    for ablation in milestone.ablations:
        stored = measured.get(ablation.key, {"sound": None, "claims": ()})
        lines = [
            {
                "statement": milestone.claim(claim["key"]).statement,
                "with": _value(claim["with"]),
                "without": _value(claim["without"]),
                "intact": claim["with"]["verdict"],
                "verdict": claim["without"]["verdict"],
            }
            for claim in stored["claims"]
        ]
        told.append({"key": ablation.key, "removes": ablation.removes, "lines": lines, "sound": stored["sound"]})
    return told


def _value(outcome: Mapping[str, Any]) -> str:
    return "" if outcome["middle"] is None else exact(outcome["middle"])


def _code(name: str) -> dict[str, Any]:
    code = excerpt(name)
    text = highlight("\n".join(code.lines), PythonLexer(), HtmlFormatter(nowrap=True, classprefix="py-"))
    return {
        "name": name.rpartition(":")[2],
        "file": code.file,
        "first": code.first,
        "text": "\n".join(code.lines),
        "html": Markup(text),
    }


def _neighbours(ids: set[str]) -> list[dict[str, Any]]:
    built = index.covering()
    ordered: list[Topic] = [topic for topic in topics().values() if topic.id in ids]
    return [
        {"id": topic.id, "title": topic.title, "page": f"{built[topic.id].stem}.html" if topic.id in built else None}
        for topic in ordered
    ]


def _measured(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The facts of a measurement: when, on what, how long, with what."""
    machine = result["machine"]
    facts = [
        ("Measured", f"{result['created'][:10]}, {result['scale']} scale"),
        ("Machine", f"{machine['cpu']}, {machine['cores']} cores"),
        ("Seeds", str(len(result["seeds"]))),
        ("Took", duration(60 * result["minutes"])),
        ("Command", result["command"]),
    ]
    if result.get("commit"):
        facts.append(("Commit", result["commit"]))
    packages = ", ".join(f"{name} {version}" for name, version in machine.get("packages", {}).items())
    facts.append(("Software", f"Python {machine['python']}, {packages}"))
    facts += [("Data", f"{name}, sha256 {digest[:12]}…") for name, digest in result["data"].items()]
    return [(name, value) for name, value in facts if value]
