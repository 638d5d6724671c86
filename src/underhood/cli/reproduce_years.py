"""``underhood reproduce seventy_five_years`` and ``underhood path years``: every model on one text."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from underhood.cli.path_views import View
from underhood.ui import terminal
from underhood.ui.terminal_charts import chart

if TYPE_CHECKING:
    from underhood.cli.reproduce import Args


def measure(args: Args, pages: Path) -> int:
    """Trains and judges every model, writes the result and its page into `pages`, and shows it."""
    from underhood.cli.reproduce_view import Progress
    from underhood.curriculum import results
    from underhood.curriculum.pages.site import refresh
    from underhood.curriculum.years import STEM
    from underhood.curriculum.years.measure import measure_years

    out = terminal.console(sys.stderr if args.json else None)
    with Progress(out) as progress:
        result = measure_years(
            args.scale,
            seeds=args.seeds or 3,
            unfinished=args.folder / STEM / "unfinished.part",
            progress=lambda model, share: progress.tell(STEM, share, model),
        )
    file = results.save(args.folder, result)
    if args.json:
        print(json.dumps({"file": str(file)} | result, ensure_ascii=False))
        return 0
    page = refresh(pages, results.places(args.folder), STEM)
    show(out, result)
    out.print(f"→ {file}", style="dim", soft_wrap=True)
    out.print(f"As a page: {page}", style="dim", soft_wrap=True)
    return 0


def years(places: Sequence[Path]) -> View:
    """The published comparison, or the user's own."""
    from underhood.curriculum.years.story import COMMAND, main_result

    result = main_result(places)

    def text() -> None:
        out = terminal.console()
        if result is None:
            out.print("Not measured yet.", style="dim")
        else:
            show(out, result)
        terminal.next_commands(out, {COMMAND: "measures all of it here, about half an hour"})

    return result, text


def show(out: Console, result: dict[str, Any]) -> None:
    """The bars, what they say, sizes and costs."""
    from underhood.cli.prose import print_prose
    from underhood.curriculum.years import story

    chart(out, story.bars(result))
    out.print()
    columns = ("year", "model", "bits per byte", "parameters", "training")
    rows = [[row[key] for key in ("year", "name", "bits", "kept", "cost")] for row in story.rows(result)]
    out.print(terminal.table(columns, rows))
    packers = ", ".join(f"{name} {value:.2f}" for name, value in result["compressors"].items())
    out.print(f"File compressors that have read the same text: {packers}.")
    print_prose(out, story.facts(result))
    if result["scale"] == "report":
        out.print()
        print_prose(out, story.READING)
