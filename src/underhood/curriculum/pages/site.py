"""Writes the path as pages that need nothing but themselves: the map, a page per milestone, the reference pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from underhood.core.files import write_text
from underhood.core.verdicts import VERDICTS, verdict_of
from underhood.curriculum import index, results
from underhood.curriculum.game import STEM, game
from underhood.curriculum.pages import graph, story
from underhood.curriculum.pages.interactive import FIGURES
from underhood.curriculum.pages.prose import html, inline
from underhood.curriculum.pages.reference import reference, reference_names
from underhood.curriculum.topics import ERAS, topics
from underhood.curriculum.years import STEM as YEARS
from underhood.curriculum.years import story as years
from underhood.ui.svg_figures import draw
from underhood.ui.theme import page_renderer, script_data

_render = page_renderer(Path(__file__).parent, prose=html, inline=inline)
PAGES = "pages"
"""The folder beside the results in which their pages lie."""


def page_names() -> list[str]:
    """The names of all pages: the map, the milestones, the comparison of the years, the reference pages."""
    return ["index", *index.milestones(), YEARS, *reference_names()]


def write_site(folder: Path, places: Sequence[Path]) -> list[Path]:
    """Writes every page into `folder` and returns their paths, the map first.

    Raises:
        UserError: the place can't be written, or a result file is damaged.
    """
    written = []
    for name in page_names():
        target = folder / f"{name}.html"
        write_text(target, page(name, places))
        written.append(target)
    return written


def refresh(folder: Path, places: Sequence[Path], stem: str) -> Path:
    """Writes the map and one milestone's page anew, and those that are missing; returns the milestone's.

    Raises:
        UserError: the place can't be written, or a result file is damaged.
    """
    for name in page_names():
        target = folder / f"{name}.html"
        if name in ("index", stem) or not target.exists():
            write_text(target, page(name, places))
    return folder / f"{stem}.html"


def page(name: str, places: Sequence[Path], *, app: bool = False) -> str:
    """One page: ``"index"``, the map, a milestone's stem, the years or a reference page. Links lead to ``NAME.html``.

    `app` adds the way back to the web page's other places.
    """
    if name == "index":
        return _render("map.html.j2", ["path.css"], ["search.js", "map.js"], app=app, **_map(places))
    if name in reference_names():
        return _render("reference.html.j2", ["path.css"], ["reference.js"], app=app, **reference(name))
    if name == YEARS:
        return _render("years.html.j2", ["path.css"], ["figures.js"], app=app, **_years(places))
    told = story.story(index.milestones()[name], places)
    played, lead = game() if name == STEM else None, FIGURES.get(name)
    scripts = ["figures.js"]
    if played is not None:
        scripts.append("game.js")
    elif lead is not None:
        scripts += ["interactive/frame.js", f"interactive/{lead.script}.js"]
    return _render(
        "milestone.html.j2",
        ["path.css", "interactive/interactive.css"],
        scripts,
        app=app,
        game=played,
        lead=lead,
        lead_data=None if lead is None else lead.data(),
        # The first measured figure leads where there is nothing to change.
        rest=told["figures"] if played is not None or lead is not None else told["figures"][1:],
        **told,
    )


def _map(places: Sequence[Path]) -> dict[str, Any]:
    latest = results.overview(index.milestones().values(), places)
    verdicts: dict[str, str | None] = {}
    for id, milestone in index.covering().items():
        verdicts[id] = verdict_of(latest[milestone.stem][1]["claims"], id) if milestone.stem in latest else None
    drawn = graph.draw(verdicts)
    counts = {verdict: sum(verdict == given for given in verdicts.values()) for verdict in VERDICTS}
    return {
        "graph": drawn,
        "eras": [
            (key, era, [topic for topic in topics().values() if topic.section == key]) for key, era in ERAS.items()
        ],
        "built": index.covering(),
        "verdicts": verdicts,
        "counts": {verdict: count for verdict, count in counts.items() if count},
        "first": graph.first_stop(),
        "hues": story.HUES,
        "shown_verdicts": [verdict for verdict in VERDICTS if counts.get(verdict)],
        "facts": script_data(graph.facts(verdicts)),
    }


def _years(places: Sequence[Path]) -> dict[str, Any]:
    result = years.main_result(places)
    if result is None:
        return {"result": None, "command": years.COMMAND}
    return {
        "result": result,
        "command": years.COMMAND,
        "figure_drawn": draw(years.bars(result)),
        "reading": years.READING,
        "beside": years.BESIDE,
        "rows": years.rows(result),
        "head": years.HEAD,
        "facts": years.facts(result),
    }
