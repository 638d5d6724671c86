"""The table "claim | paper | here | verdict"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from underhood.core.milestone import Milestone
from underhood.core.verdicts import HELD, count_held
from underhood.ui.formatting import exact
from underhood.ui.terminal import table

EVIDENCE = {"verified": "v", "recalled": "r", "computed": "c"}


def claims_table(milestone: Milestone, result: Mapping[str, Any] | None) -> Table:
    """The claims, with what was measured if there is a result. Headline claims have a star.

    Marks of the paper's numbers: v read in the paper, r recalled, c computed.
    """
    rows = []
    known = {claim["key"]: claim for claim in result["claims"]} if result else {}
    for claim in milestone.claims:
        row = known.get(claim.key, {})
        paper = "" if claim.paper is None else f"{exact(claim.paper.value)} {EVIDENCE[claim.paper.evidence]}"
        verdict = row.get("verdict") or ("" if not row else row.get("why", ""))
        rows.append([f"* {claim.statement}" if claim.headline else claim.statement, paper, here(row), verdict])
    return table(["claim", "paper", "here", "verdict"], rows)


def summary_lines(result: Mapping[str, Any]) -> list[str]:
    """The milestone's verdict, how many claims hold, and each claim that does not."""
    held, judged = count_held(result["claims"])
    lines = [f"* headline claims: {result['verdict'] or 'not judged at this scale'}. {held} of {judged} claims hold."]
    for claim in result["claims"]:
        if claim["verdict"] is not None and claim["verdict"] not in HELD:
            lines.append(f"  {claim['key']}: {claim['verdict']}" + (f", {claim['why']}" if claim.get("why") else ""))
    return lines


def here(row: Mapping[str, Any]) -> str:
    """What was measured: the middle, with its 95 % interval where there is one."""
    if row.get("middle") is None:
        return ""
    unit = f" {row['unit']}" if row.get("unit") else ""
    text = exact(row["middle"])
    if row.get("low") is not None and exact(row["low"]) != exact(row["high"]):
        text += f" ({exact(row['low'])} to {exact(row['high'])})"
    return text + unit
