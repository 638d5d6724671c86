"""``underhood report``: writes a run's report.html again, from what the run has recorded so far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from underhood.cli.options import Positional


@dataclass(frozen=True)
class Args:
    """Writes RUN/report.html: one page that shows what every stage of a run did.

    The page needs nothing but itself: no network, no other file. An unfinished
    run gets one too, which says what is missing.
    """

    run: Positional[Path | None] = None
    """Folder of the run, e.g. runs/pydocs; the newest run here if left out."""

    open: bool = False
    """Opens the page in the browser."""


def run(args: Args) -> int:
    from underhood.cli.newest_run import run_or_newest
    from underhood.recipes.report.page import write_report

    page = write_report(run_or_newest(args.run, model=False))
    print(page)
    if args.open:
        import webbrowser

        webbrowser.open(page.resolve().as_uri())
    return 0
