"""``underhood path``: the map of the path, one milestone, the way to it, and the question that leads there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from underhood.cli.options import Positional
from underhood.core.errors import UserError

ACTIONS = {"map": 0, "show": 1, "to": 1, "search": None, "check": 0, "years": 0}


@dataclass(frozen=True)
class Args:
    """Shows the path from Markov's letters to today's models, as code that runs here.

      underhood path                        the map, era by era
      underhood path show p1913_markov      one milestone and what it found
      underhood path to p2003_compressor    what to read first, in order
      underhood path search "why depth?"    what answers a question: milestones,
                                            documentation, commands, code
      underhood path years                  75 years of models on one text
      underhood path check                  tables of papers, recomputed
      underhood path --html DIR             the whole path as pages for a browser

    underhood reproduce NAME measures a milestone again on this machine.
    """

    words: Positional[tuple[str, ...]] = ()
    """map, show NAME, to NAME, search QUESTION, years or check; the map if left out."""

    json: bool = False
    """Prints JSON instead of text."""

    html: Path | None = None
    """Writes the path as pages into this folder; they need no network."""

    docs: Path | None = None
    """Writes one Markdown page per milestone into this folder."""

    results: Path | None = None
    """Folder of your own results, if not that of underhood reproduce."""

    knows: tuple[str, ...] = ()
    """Topics that you know already; `to` leaves them out."""

    tier: int = 3
    """Shows topics up to this tier: 1 the shortest path, 2 important, 3 all."""


def run(args: Args) -> int:
    from underhood.cli import path_search, path_views, reproduce_years
    from underhood.curriculum import results

    action, *rest = args.words or ("map",)
    if action not in ACTIONS:
        raise UserError(f"underhood path has no {action!r}", expected=", ".join(ACTIONS))
    if (ACTIONS[action] is not None and len(rest) != ACTIONS[action]) or (action == "search" and not rest):
        wants = {"show": "one NAME", "to": "one NAME", "search": "a QUESTION"}.get(action, "nothing more")
        raise UserError(f"underhood path {action} takes {wants}")
    places = results.places(args.results)
    if args.html is not None or args.docs is not None:
        return path_views.write_pages(args.html, args.docs, places)
    pages, text = {
        "map": lambda: path_views.overview(places, args.tier),
        "show": lambda: path_views.one(rest[0], places),
        "to": lambda: path_views.path_to(rest[0], args.knows),
        "search": lambda: path_search.search_view(" ".join(rest)),
        "years": lambda: reproduce_years.years(places),
        "check": path_views.check,
    }[action]()
    if args.json:
        print(json.dumps(pages, ensure_ascii=False, indent=1))
    else:
        text()
    return 0
