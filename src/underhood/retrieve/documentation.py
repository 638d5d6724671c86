"""Passages of the default corpus: what Python's documentation says about each function, class, property and module."""

from __future__ import annotations

import re

from underhood.data.docstrings import Entry
from underhood.data.grounded import function_text
from underhood.data.pydocs import documented_entries, summary_of
from underhood.retrieve.familiarity import familiarity
from underhood.retrieve.passages import Passage

MAX_SUMMARY = 160
"""Characters of a summary that is made from a docstring whose first sentence makes no summary."""


def documentation_passages() -> list[Passage]:
    """One passage per documented public thing (about 6,400 on CPython 3.11).

    Its text is the summary with the parameters, short enough for a small model to copy; the whole docstring is
    searched.
    """
    return [passage for entry in documented_entries() if (passage := _passage(entry)) is not None]


def _passage(entry: Entry) -> Passage | None:
    summary = summary_of(entry.doc, entry.name) or _first_words(entry.doc)
    if summary is None:
        return None
    callable_here = entry.kind in ("function", "method", "class") and entry.signature is not None
    return Passage(
        title=entry.name,
        text=function_text(summary, entry.parameters if callable_here else None),
        source=f"module {entry.document}",
        search_text=entry.doc,
        weight=familiarity(entry.name, entry.owner, entry.kind),
    )


def _first_words(doc: str) -> str | None:
    """The first paragraph of prose, cut between words."""
    for paragraph in re.split(r"\n\s*\n", doc.strip()):
        words = " ".join(paragraph.split())
        if len(words) >= 8 and not words.startswith(">>>"):
            return words if len(words) <= MAX_SUMMARY else words[:MAX_SUMMARY].rpartition(" ")[0] + " …"
    return None
