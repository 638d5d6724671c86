"""Layout faults of a page as the browser lays it out: what is too wide, cut off, or on top of something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

MEASURE = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


def layout_faults(page: Page) -> list[tuple[str, str]]:
    """The faults of the page as it is drawn now: what is wrong, and which element (with its first words).

    - wider than the window, and in no box that scrolls;
    - cut off by a box that does not scroll, or an equation, table or listing whose lower edge is cut;
    - a formula that reaches out of its paragraph;
    - a verdict's mark that covers its word;
    - letters on top of letters.
    """
    faults: list[Any] = page.evaluate(MEASURE)
    return [(kind, where) for kind, where in faults]
