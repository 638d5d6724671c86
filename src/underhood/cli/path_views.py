"""Views of ``underhood path``, each both as JSON and as text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from textwrap import shorten, wrap
from typing import Any

from rich.text import Text

from underhood.cli.claims import MARKS, print_claims, summary_lines
from underhood.cli.prose import print_prose
from underhood.core.verdicts import verdict_of
from underhood.curriculum import index, results, route
from underhood.curriculum import topics as table
from underhood.ui import terminal
from underhood.ui.formatting import exact, minutes

View = tuple[Any, Callable[[], None]]


def overview(places: Sequence[Path], tier: int) -> View:
    """Every topic with its milestone and verdict."""
    built = index.covering()
    latest = results.overview(index.milestones().values(), places)
    states: dict[str, Any] = {}
    for id in table.topics():
        milestone = built.get(id)
        if milestone is None:
            states[id] = None
            continue
        file, result = latest.get(milestone.stem, (None, None))
        verdict = None if result is None else verdict_of(result["claims"], id)
        states[id] = {
            "milestone": milestone.stem,
            "verdict": verdict,
            "result": None if file is None else _short(file),
        }
    own = {stem: entry[1]["verdict"] for stem, entry in _own(places).items()}
    listed = [
        {
            "stem": milestone.stem,
            "title": milestone.title,
            "year": milestone.year,
            "topics": list(milestone.topics),
            "question": milestone.question,
            "minutes": asdict(milestone.minutes),
            "verdict": verdict_of(latest[milestone.stem][1]["claims"]) if milestone.stem in latest else None,
            "own_verdict": own.get(milestone.stem),
        }
        for milestone in index.milestones().values()
    ]

    def text() -> None:
        out = terminal.console()
        for section, era in table.ERAS.items():
            members = [topic for topic in table.topics().values() if topic.section == section]
            shown = {
                built[topic.id].stem: (topic, built[topic.id])
                for topic in reversed(members)
                if topic.id in built and topic.tier <= tier
            }
            count = sum(states[topic.id] is not None for topic in members)
            out.print(f"{section}  {era}", style="bold", end="")
            out.print(f"  {count} of {len(members)}", style="dim")
            for stem, (topic, milestone) in reversed(shown.items()):
                verdict = states[topic.id]["verdict"]
                mark = " " if verdict is None else MARKS[verdict]
                yours = own.get(stem)
                beside = f" (yours: {yours})" if yours else ""
                line = Text(f"  {mark} {stem:<22} {milestone.title}")
                line.truncate(out.width - len(beside), overflow="ellipsis")
                out.print(line + Text(beside, "bold"), soft_wrap=True)
        out.print()
        legend = [f"{mark} {verdict}" for verdict, mark in MARKS.items()]
        for line in (legend[:3], legend[3:6], legend[6:]):
            out.print("  ".join(line), style="dim")
        terminal.next_commands(
            out,
            {
                "underhood path search QUESTION": "finds what answers a question",
                "underhood path show NAME": "its idea and what it found",
                "underhood reproduce NAME": "measures it here",
            },
        )

    return {"topics": states, "milestones": listed}, text


def one(name: str, places: Sequence[Path]) -> View:
    """One milestone: its idea, its claims with the latest result, where to go on."""
    milestone = index.find(name)
    measured = results.measurements(milestone.stem, places)
    latest, own = measured.main, measured.beside
    data = {
        "stem": milestone.stem,
        "topics": list(milestone.topics),
        "title": milestone.title,
        "year": milestone.year,
        "question": milestone.question,
        "idea": milestone.idea.strip(),
        "papers": [vars(paper) for paper in milestone.papers],
        "needs": [
            topic.id for id in milestone.topics for topic in table.before(id)[:-1] if topic.id not in milestone.topics
        ],
        "errata": list(milestone.errata),
        "result": None if latest is None else {"file": _short(latest[0])} | latest[1],
        "own": None if own is None else {"file": _short(own[0])} | own[1],
    }

    def text() -> None:
        out = terminal.console()
        out.print(f"{milestone.title} ({milestone.year})", style="bold")
        out.print(milestone.question, style="dim")
        out.print()
        print_prose(out, milestone.idea)
        out.print()
        print_claims(out, milestone, None if latest is None else latest[1], None if own is None else own[1])
        out.print()
        if latest is None:
            out.print("Not measured yet.", style="dim")
        else:
            result = latest[1]
            for line in summary_lines(result):
                out.print(line)
            for label, entry in (("Published" if measured.published else "Yours", latest), ("Yours", own)):
                if entry is not None:
                    file, result = entry
                    machine, scale = result["machine"]["cpu"], result["scale"]
                    out.print(f"{label}: {result['created'][:10]}, {scale} scale, {machine}", style="dim")
                    out.print(f"  {_short(file)}", style="dim", soft_wrap=True)
        errata = "\n".join(f"- {line}" for line in milestone.errata)
        for title, prose in (("What was hard", milestone.hard), ("Errata", errata)):
            if prose.strip():
                out.print()
                out.print(title, style="bold")
                print_prose(out, prose)
        after = {topic.id for id in milestone.topics for topic in table.after(id)}
        follow = {built.stem: built for id, built in index.covering().items() if id in after and built != milestone}
        commands = {f"underhood reproduce {milestone.stem}": f"about {minutes(milestone.minutes.report, ' ')}"}
        commands |= {f"underhood path show {stem}": following.title for stem, following in follow.items()}
        room = out.width - max(map(len, commands)) - 4
        short = {command: shorten(purpose, room, placeholder=" …") for command, purpose in commands.items()}
        terminal.next_commands(out, short)

    return data, text


def path_to(name: str, knows: Collection[str]) -> View:
    """The shortest route to a topic."""
    id = name if name in table.topics() else index.find(name).topics[0]
    known = {covered for name in knows for covered in _topics_of(name)}
    steps = route.path_to(id, known)
    read, run = sum(step.read for step in steps), sum(step.run for step in steps)
    data = {
        "to": id,
        "steps": [
            {
                "topics": [topic.id for topic in step.topics],
                "milestone": None if step.milestone is None else step.milestone.stem,
                "read_minutes": step.read,
                "run_minutes": step.run,
            }
            for step in steps
        ],
        "read_minutes": read,
        "run_minutes": run,
    }

    def text() -> None:
        out = terminal.console()
        rows = []
        for stop, step in enumerate(steps, start=1):
            title = step.topics[-1].title if step.milestone is None else step.milestone.title
            state = "not written yet" if step.milestone is None else minutes(step.run, " ")
            name = step.topics[-1].id if step.milestone is None else step.milestone.stem
            rows.append([stop, name, title, minutes(step.read, " "), state])
        out.print(terminal.table(["", "name", "", "read", "run"], rows))
        out.print()
        out.print(f"{minutes(read, ' ')} of reading, {minutes(run, ' ')} of running on two cores.", style="dim")

    return data, text


def check() -> View:
    """Statements of papers, computed again from what the same papers print."""
    from underhood.curriculum.checks import CHECKS

    data = [
        {
            "topic": statement.topic,
            "paper": statement.paper,
            "where": statement.where,
            "what": statement.what,
            "printed": statement.printed,
            "from": statement.from_,
            "recomputed": statement.recomputed,
            "verdict": statement.verdict,
            "evidence": statement.evidence,
        }
        for statement in CHECKS
    ]

    def text() -> None:
        out = terminal.console()
        for statement in CHECKS:
            out.print(f"{statement.paper}, {statement.where}", style="bold", end="  ")
            built = index.covering().get(statement.topic)
            out.print(statement.topic if built is None else built.stem, style="dim")
            out.print(f"  {MARKS[statement.verdict]} {statement.verdict}: {statement.what}")
            again = f"printed {statement.printed:,g}, recomputed {exact(statement.recomputed)} ({statement.from_})"
            for line in wrap(again, out.width - 4, break_on_hyphens=False):
                out.print(f"    {line}", style="dim")
        wrong = sum(statement.verdict == "source's misprint" for statement in CHECKS)
        out.print()
        out.print(f"{wrong} of {len(CHECKS)} statements contradict what the same source prints elsewhere.")

    return data, text


def write_pages(html: Path | None, docs: Path | None, places: Sequence[Path]) -> int:
    """Writes the pages for a browser, the Markdown pages, or both."""
    if html is not None:
        from underhood.curriculum.pages.site import write_site

        print(write_site(html, places)[0])
    if docs is not None:
        from underhood.curriculum.pages.markdown import write_docs

        print(write_docs(docs, places)[0])
    return 0


def _topics_of(name: str) -> tuple[str, ...]:
    """The topic of that id, or all those that a milestone covers."""
    return (name,) if name in table.topics() else index.find(name).topics


def _own(places: Sequence[Path]) -> dict[str, tuple[Path, Any]]:
    """The user's own results of milestones that have a published one too."""
    beside = {stem: results.measurements(stem, places).beside for stem in index.milestones()}
    return {stem: entry for stem, entry in beside.items() if entry is not None}


def _short(file: Path) -> str:
    here = Path.cwd()
    return str(file.resolve().relative_to(here) if file.resolve().is_relative_to(here) else file)
