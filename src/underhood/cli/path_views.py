"""Views of ``underhood path``, each both as JSON and as text."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from underhood.cli.claims import claims_table, summary_lines
from underhood.core.verdicts import verdict_of
from underhood.curriculum import index, results, route
from underhood.curriculum import topics as table
from underhood.ui import terminal
from underhood.ui.formatting import exact, minutes

View = tuple[Any, Callable[[], None]]
MARKS = {
    "exact": "=", "holds": "+", "holds in shape": "~",
    "inconclusive": "?", "not measurable here": "/", "does not hold here": "−",
}  # fmt: skip


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
    listed = [
        {
            "stem": milestone.stem,
            "title": milestone.title,
            "year": milestone.year,
            "topics": list(milestone.topics),
            "question": milestone.question,
            "minutes": asdict(milestone.minutes),
            "verdict": verdict_of(latest[milestone.stem][1]["claims"]) if milestone.stem in latest else None,
        }
        for milestone in index.milestones().values()
    ]

    def text() -> None:
        out = terminal.console()
        for section, era in table.ERAS.items():
            members = [topic for topic in table.topics().values() if topic.section == section]
            here = [topic for topic in members if states[topic.id] is not None and topic.tier <= tier]
            count = sum(states[topic.id] is not None for topic in members)
            out.print(f"{section}  {era}", style="bold", end="")
            out.print(f"  {count} of {len(members)}", style="dim")
            for topic in here:
                verdict = states[topic.id]["verdict"]
                mark = " " if verdict is None else MARKS[verdict]
                year = "" if topic.year is None else str(topic.year)
                out.print(
                    f"  {mark} {topic.id:<18} {year:<4}  {topic.title}",
                    soft_wrap=False,
                    overflow="ellipsis",
                    no_wrap=True,
                )
        out.print()
        legend = ", ".join(f"{mark} {verdict}" for verdict, mark in MARKS.items())
        out.print(f"{legend}.", style="dim")
        terminal.next_commands(
            out,
            {
                "underhood path search QUESTION": "finds what answers a question",
                "underhood path show ID": "its idea and what it found",
                "underhood reproduce ID": "measures it here",
            },
        )

    return {"topics": states, "milestones": listed}, text


def one(name: str, places: Sequence[Path]) -> View:
    """One milestone: its idea, its claims with the latest result, where to go on."""
    milestone = index.find(name)
    latest = results.latest(milestone.stem, places)
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
    }

    def text() -> None:
        out = terminal.console()
        out.print(f"{milestone.title} ({milestone.year})", style="bold")
        out.print(milestone.question, style="dim")
        for paragraph in milestone.idea.strip().split("\n\n"):
            out.print()
            out.print(textwrap.fill(" ".join(paragraph.split()), out.width))
        out.print()
        out.print(claims_table(milestone, None if latest is None else latest[1]))
        if latest is None:
            out.print("Not measured yet.", style="dim")
        else:
            result = latest[1]
            for line in summary_lines(result):
                out.print(line)
            out.print(
                f"Measured {result['created'][:10]} on {result['machine']['cpu']}: {_short(latest[0])}", style="dim"
            )
        for title, lines in (("What was hard", [milestone.hard.strip()]), ("Errata", milestone.errata)):
            if any(lines):
                out.print()
                out.print(title, style="bold")
                for line in lines:
                    out.print(textwrap.fill(" ".join(line.split()), out.width))
        follow = dict.fromkeys(
            topic.id for id in milestone.topics for topic in table.after(id) if topic.id not in milestone.topics
        )
        commands = {f"underhood reproduce {milestone.stem}": f"about {minutes(milestone.minutes.report, ' ')}"}
        commands |= {f"underhood path show {id}": table.topics()[id].title for id in follow if id in index.covering()}
        terminal.next_commands(out, commands)

    return data, text


def path_to(name: str, knows: Collection[str]) -> View:
    """The shortest route to a topic."""
    id = name if name in table.topics() else index.find(name).topics[0]
    for known in knows:
        table.topic(known)
    steps = route.path_to(id, knows)
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
            rows.append([stop, ", ".join(topic.id for topic in step.topics), title, minutes(step.read, " "), state])
        out.print(terminal.table(["", "topic", "", "read", "run"], rows))
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
            "agrees": statement.agrees,
            "evidence": statement.evidence,
        }
        for statement in CHECKS
    ]

    def text() -> None:
        out = terminal.console()
        for statement in CHECKS:
            out.print(f"{statement.paper}, {statement.where}", style="bold", end="  ")
            out.print(statement.topic, style="dim")
            word = "agrees" if statement.agrees else "does not agree"
            out.print(
                f"  prints {exact(statement.printed)} {statement.what}; "
                f"{statement.from_}: {exact(statement.recomputed)}, {word}."
            )
        wrong = sum(not statement.agrees for statement in CHECKS)
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


def _short(file: Path) -> str:
    here = Path.cwd()
    return str(file.resolve().relative_to(here) if file.resolve().is_relative_to(here) else file)
