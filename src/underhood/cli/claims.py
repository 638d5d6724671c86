"""Claims in the terminal: a table with one line per claim, and what each claim says."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from underhood.core.milestone import Claim, Milestone
from underhood.core.verdicts import HELD, count_held
from underhood.ui.formatting import exact
from underhood.ui.unicode_math import plain_prose

EVIDENCE = {"verified": "v", "recalled": "r", "computed": "c"}
MARKS = {
    "exact": "=", "holds": "+", "holds in shape": "~",
    "source's misprint": "!", "inconclusive": "?", "too small to show here": "<",
    "not measurable here": "/", "does not hold here": "−",
}  # fmt: skip
"""A sign for each verdict, where there is no room for its words."""

Cells = tuple[str, str, str, str]
HEADS: Cells = ("  claim", "paper", "here", "verdict")
OWN_HEADS: Cells = ("  claim", "  published", "yours", "your verdict")
LONGEST_VERDICT = max(map(len, MARKS))
GAP = "  "


def print_claims(
    out: Console, milestone: Milestone, result: Mapping[str, Any] | None, own: Mapping[str, Any] | None = None
) -> None:
    """The table, then the claims in words. Headline claims have a star.

    Marks of the paper's numbers: v read in the paper, r recalled, c computed from what it prints.

    Args:
        own: the user's own result; then `result` is the published one, and both are shown side by side.
    """
    if result:
        rows = [own_cells(claim, result, own) if own else claim_cells(claim, result) for claim in milestone.claims]
        for number, line in enumerate(fitted([OWN_HEADS if own else HEADS, *rows], out.width)):
            out.print(Text(line, "dim" if number == 0 else ""), soft_wrap=True)
        out.print()
    indent = 2 + max(len(claim.key) for claim in milestone.claims)
    for claim in milestone.claims:
        words = textwrap.wrap(plain_prose(claim.statement), out.width - indent - len(GAP), break_on_hyphens=False)
        unit = f" [{claim.unit}]" if claim.unit and result else ""
        if words and len(words[-1]) + len(unit) <= out.width - indent - len(GAP):
            words[-1] += unit
        elif unit:
            words.append(unit.strip())
        name = _name(claim)
        for number, line in enumerate(words):
            out.print(Text.assemble(f"{name if number == 0 else '':<{indent}}{GAP}", (line, "dim")), soft_wrap=True)


def claim_cells(claim: Claim, result: Mapping[str, Any]) -> Cells:
    """Name, paper's number, what was measured, verdict."""
    measured = _measured(claim, result)
    return _name(claim), _paper(claim), here(measured), _verdict(measured)


def own_cells(claim: Claim, published: Mapping[str, Any], own: Mapping[str, Any]) -> Cells:
    """Name, published number with the mark of its verdict, the user's number, and the verdict of that."""
    theirs, yours = _measured(claim, published), _measured(claim, own)
    mark = MARKS.get(theirs.get("verdict") or "", " ")
    return _name(claim), f"{mark} {_middle(theirs)}", here(yours), _verdict(yours)


def _name(claim: Claim) -> str:
    return f"{'* ' if claim.headline else '  '}{claim.key}"


def _paper(claim: Claim) -> str:
    return "" if claim.paper is None else f"{exact(claim.paper.value)} {EVIDENCE[claim.paper.evidence]}"


def _measured(claim: Claim, result: Mapping[str, Any]) -> Mapping[str, Any]:
    return next((row for row in result["claims"] if row["key"] == claim.key), {})


def _verdict(row: Mapping[str, Any]) -> str:
    return row.get("verdict") or row.get("why") or ""


def _middle(row: Mapping[str, Any]) -> str:
    return "" if row.get("middle") is None else exact(row["middle"])


def fitted(rows: Sequence[Cells], width: int) -> list[str]:
    """The rows as lines of at most `width` characters: verdicts are cut last."""
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    too_wide = sum(widths) + 3 * len(GAP) - width
    for column, least in ((1, 12), (2, 18), (0, 14), (3, LONGEST_VERDICT), (2, 8)):
        cut = min(max(too_wide, 0), max(widths[column] - least, 0))
        widths[column] -= cut
        too_wide -= cut
    return [
        GAP.join(_cut(cell, room).ljust(room) for cell, room in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


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
    text = _middle(row)
    if row.get("low") is not None and exact(row["low"]) != exact(row["high"]):
        text += f" ({exact(row['low'])} to {exact(row['high'])})"
    return text
