"""The table "claim | paper | here | verdict", and numbers in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from underhood.cli import terminal
from underhood.cli.wording import human_time
from underhood.core.milestone import Milestone

EVIDENCE = {"verified": "v", "recalled": "r", "computed": "c"}


def claims_table(milestone: Milestone, result: Mapping[str, Any] | None) -> Table:
    """The claims, with what was measured if there is a result. Marks: v read in the paper, r recalled, c computed."""
    rows = []
    known = {claim["key"]: claim for claim in result["claims"]} if result else {}
    for claim in milestone.claims:
        row = known.get(claim.key, {})
        paper = "" if claim.paper is None else f"{number(claim.paper.value)} {EVIDENCE[claim.paper.evidence]}"
        verdict = row.get("verdict") or ("" if not row else row.get("why", ""))
        rows.append([claim.statement, paper, here(row), verdict])
    return terminal.table(["claim", "paper", "here", "verdict"], rows)


def here(row: Mapping[str, Any]) -> str:
    """What was measured: the middle, with its 95 % interval where there is one."""
    if row.get("middle") is None:
        return ""
    unit = f" {row['unit']}" if row.get("unit") else ""
    text = number(row["middle"])
    if row.get("low") is not None and row["low"] != row["high"]:
        text += f" ({number(row['low'])} to {number(row['high'])})"
    return text + unit


def number(value: float | str) -> str:
    """Few digits: whole numbers with groups, others to four."""
    if isinstance(value, str):
        return value
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 1 else f"{value:.4g}"


def minutes_words(minutes: float) -> str:
    """Minutes as a person says them: ``40 s``, ``6 min``."""
    if minutes <= 0:
        return "0 s"
    return (
        human_time(60 * minutes) if minutes < 1 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    )
