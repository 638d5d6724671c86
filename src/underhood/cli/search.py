"""``underhood search``: the passages of an index that answer a question."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.cli.options import Positional
from underhood.core.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.retrieve.index import Hit

INDENT = 4


@dataclass(frozen=True, kw_only=True)
class Args:
    """Searches an index of passages; no model is needed.

    Shows the best passages for a question or a few words, each with its score,
    its source and line, and the words that it matched.

      underhood search notes.index "how do I install it?"
    """

    index: Positional[Path]
    """The index that underhood index made, or a run's folder."""

    question: Positional[tuple[str, ...]]
    """A question, or words to look for."""

    k: int = 5
    """How many passages to show at most."""

    json: bool = False
    """Prints one JSON object."""

    def __post_init__(self):
        if self.k < 1:
            raise ValueError("--k takes 1 or more")


def run(args: Args) -> int:
    from underhood.retrieve.index import PassageIndex, index_file

    question = " ".join(args.question)
    if not question.strip():
        raise UserError("QUESTION missing", fix='Ask something, e.g. underhood search notes.index "how do I …?"')
    index = PassageIndex.load(index_file(args.index))
    hits = index.search(question, args.k)
    if args.json:
        print(json.dumps({"question": question, "hits": [as_json(hit) for hit in hits]}, ensure_ascii=False))
        return 0
    from underhood.ui.terminal import console

    out = console()
    if not hits:
        out.print(f"No passage of {args.index} has any of these words.")
    for rank, hit in enumerate(hits, start=1):
        print_hit(out, rank, hit)
    return 0


def as_json(hit: Hit) -> dict[str, object]:
    """A hit as plain JSON values."""
    passage = hit.passage
    return {
        "title": passage.title,
        "text": passage.text,
        "source": passage.source,
        "line": passage.line,
        "score": round(hit.score, 4),
        "coverage": round(hit.coverage, 4),
        "matched": list(hit.matched),
    }


def print_hit(out: Console, rank: int, hit: Hit) -> None:
    """Rank, title and score; source, line and matched words; the text with those words marked."""
    from rich.padding import Padding
    from rich.text import Text

    from underhood.retrieve.highlight import matched_spans
    from underhood.ui.terminal import visible

    def marked(text: str, style: str = "") -> Text:
        shown = Text(visible(text), style)
        for start, end in matched_spans(text, hit.matched):
            shown.stylize("bold underline", start, end)
        return shown

    passage = hit.passage
    score = f"{hit.score:.2f}"
    title = marked(passage.title or passage.source, "bold")
    title.truncate(out.width - INDENT - len(score) - 2, overflow="ellipsis")
    gap = out.width - INDENT - title.cell_len - len(score)
    if rank > 1:
        out.print()
    out.print(Text.assemble((f"{rank:<{INDENT}}", "dim"), title, " " * gap, (score, "dim")))
    where = visible(f"{passage.source}:{passage.line}")
    out.print(Padding(Text(f"{where}, matched: {', '.join(hit.matched)}", "dim"), (0, 0, 0, INDENT), expand=False))
    out.print(Padding(marked(passage.text), (0, 0, 0, INDENT), expand=False))
