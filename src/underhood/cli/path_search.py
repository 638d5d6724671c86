"""View of ``underhood path search``: what a question leads to, what exists first, as JSON and as text."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich.text import Text

from underhood.core.errors import UserError
from underhood.curriculum.search.entries import KINDS
from underhood.curriculum.search.ranking import search
from underhood.ui import terminal

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.cli.path_views import View
    from underhood.curriculum.search.ranking import SearchHit

KIND_WIDTH = max(len(name) for kind, name in KINDS.items() if kind != "topic") + 2


def search_view(question: str) -> View:
    """The entries that answer a question best.

    Raises:
        UserError: no word of the question is known.
    """
    hits = search(question)
    if not hits:
        raise UserError(
            f"nothing speaks of {question!r}",
            fix="Try other words; underhood path shows the map, underhood --help the commands",
        )
    data = [
        {
            "kind": hit.entry.kind,
            "target": hit.entry.target,
            "title": hit.entry.title,
            "summary": hit.entry.summary,
            "exists": hit.entry.exists,
            "see": hit.entry.see,
            "score": round(hit.score, 3),
        }
        for hit in hits
    ]

    def text() -> None:
        out = terminal.console()
        for hit in hits:
            print_entry(out, hit)
        first = hits[0].entry
        if first.see.startswith("underhood "):
            terminal.next_commands(out, {first.see: "reads the first"})

    return data, text


def print_entry(out: Console, hit: SearchHit) -> None:
    """Kind and title; below it one line about it, and where it is if that is a file."""
    entry = hit.entry
    if not entry.exists:
        line = Text.assemble((f"{KINDS['topic']}: ", "dim"), entry.title, (f" ({entry.target})", "dim"))
        line.truncate(out.width, overflow="ellipsis")
        out.print(line)
        return
    where = f"{entry.see}  " if entry.kind in ("docs", "code") else ""
    heading = "" if entry.kind == "code" else entry.title
    line = Text.assemble((f"{KINDS[entry.kind]:<{KIND_WIDTH}}", "dim"), (where.rstrip() or heading, "bold"))
    if where and heading and len(where) + len(heading) + KIND_WIDTH <= out.width:
        line.append(f"  {heading}")
    out.print(line, soft_wrap=True)
    about = f"{entry.summary} ({entry.target})" if entry.kind == "milestone" else entry.summary
    room = out.width - KIND_WIDTH
    for words in textwrap.wrap(about, room, max_lines=2, placeholder=" …"):
        out.print(Text(" " * KIND_WIDTH + words, "dim"))
