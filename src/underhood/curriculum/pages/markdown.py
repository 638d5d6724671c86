"""The milestones' pages as Markdown, for those who read the repository: from the same source as the pages."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from underhood.core.files import write_text
from underhood.core.milestone import Milestone
from underhood.curriculum import index
from underhood.curriculum.pages.story import story
from underhood.curriculum.years import STEM as YEARS
from underhood.curriculum.years import story as years
from underhood.curriculum.years.picture import description, picture

NOTE = "<!-- Made by underhood path --docs docs/path. Change the milestone, not this page. -->"


def write_docs(folder: Path, places: Sequence[Path]) -> list[Path]:
    """Writes ``<stem>.md`` for every milestone, and returns the paths.

    Raises:
        UserError: the place can't be written.
    """
    written = []
    for milestone in index.milestones().values():
        target = folder / f"{milestone.stem}.md"
        write_text(target, markdown(milestone, places))
        written.append(target)
    result = years.main_result(places)
    if result is not None:
        for suffix, text in ((".svg", picture(result)), (".md", years_markdown(result))):
            target = folder / f"{YEARS}{suffix}"
            write_text(target, text)
            written.append(target)
    return written


def years_markdown(result: dict[str, Any]) -> str:
    """The page of the comparison."""
    rows = [f"| {' | '.join(years.HEAD)} |", f"|{' --- |' * len(years.HEAD)}"]
    for row in years.rows(result):
        name = f"[{row['name']}]({row['page']}.md)" if row["page"] else row["name"]
        cells = (f"{row['year']} {name}", *(row[key] for key in ("idea", "bits", "kept", "cost", "paper", "source")))
        rows.append("| " + " | ".join(_safe(cell) for cell in cells) + " |")
    parts = [NOTE, "# Seventy-five years of language models, on one text"]
    parts += ["*How many bits does each need for a byte of text that it has not seen?*"]
    parts += [f"![{description(result)}]({YEARS}.svg)", years.facts(result), years.READING]
    parts += ["## In numbers", "\n".join(rows), years.BESIDE, "## Run it again", f"```text\n{years.COMMAND}\n```"]
    return "\n\n".join(block.strip() for block in parts).replace("\u00a0", " ") + "\n"


def markdown(milestone: Milestone, places: Sequence[Path]) -> str:
    """One milestone's page."""
    told = story(milestone, places)
    result = told["result"]
    parts = [NOTE, f"# {milestone.title}", f"*{milestone.question}*"]
    parts.append(
        f"{told['era']}, {milestone.year}. {told['minutes']['read']} to read, {told['minutes']['report']} to run."
    )
    parts.append(milestone.idea.strip())
    for code in told["code"]:
        source = f"../../src/{code['file']}"
        parts.append(f"`{code['name']}` in [{code['file']}]({source}):")
        parts.append(f"```text\n{code['text']}\n```")
    parts += ["## Claims", *_verdict(told), _claims(told)]
    if result:
        parts += [_checked(result)] if result["oracles"] else []
        parts += result["notes"]
    parts += ["## Without the idea", *_without(told)]
    if milestone.hard.strip():
        parts += ["## What was hard", milestone.hard.strip()]
    if milestone.errata:
        parts += ["## What sources get wrong", "\n".join(f"- {erratum}" for erratum in milestone.errata)]
    parts += ["## Run it again", f"```text\n{told['command']}\n```"]
    if told["measured"]:
        parts.append("\n".join(f"- {name}: {_safe(value)}" for name, value in told["measured"]))
    parts += ["## Sources", "\n".join(f"- {p.authors} ({p.year}). [{p.title}]({p.link})." for p in milestone.papers)]
    follow = [
        f"[{neighbour['title']}]({neighbour['page'].replace('.html', '.md')})"
        for neighbour in told["next"]
        if neighbour["page"]
    ]
    if follow:
        parts.append(f"Next: {', '.join(follow)}.")
    return "\n\n".join(block.strip() for block in parts if block.strip()).replace("\u00a0", " ") + "\n"


def _claims(told: dict[str, Any]) -> str:
    rows = ["| claim | paper | here | judged | verdict |", "| --- | --- | --- | --- | --- |"]
    for claim in told["claims"]:
        paper = ""
        if claim["paper"]:
            where = f", {claim['paper']['where']}" if claim["paper"]["where"] else ""
            paper = f"{claim['paper']['value']} ({claim['paper']['evidence']}{where})"
        here = claim["why"] if claim["here"] is None else claim["here"] + (f" {claim['unit']}" if claim["unit"] else "")
        if claim["interval"]:
            here += f" ({claim['interval']})"
        statement = f"**{claim['statement']}**" if claim["headline"] else claim["statement"]
        cells = (statement, paper, here, claim["rule"], claim["verdict"] or "not measured yet")
        rows.append("| " + " | ".join(_safe(cell) for cell in cells) + " |")
    return "\n".join(rows)


def _verdict(told: dict[str, Any]) -> list[str]:
    """The verdict, how many claims hold, and which do not; headline claims are bold in the table."""
    if told["held"] is None:
        return []
    held, judged = told["held"]
    text = f"Headline claims (bold): **{told['verdict']}**. {held} of {judged} claims hold."
    failing = [f"- {claim['statement']}: {claim['verdict']}" for claim in told["failing"]]
    return [text + (" Not these:\n\n" + "\n".join(failing) if failing else "")]


def _checked(result: dict[str, Any]) -> str:
    lines = []
    for oracle in result["oracles"]:
        word = "Confirmed" if oracle["agrees"] else "Not confirmed"
        lines.append(f"- {word}: {oracle['name']}" + (f" ({oracle['detail']})" if oracle["detail"] else ""))
    return "Checked against others:\n\n" + "\n".join(lines)


def _without(told: dict[str, Any]) -> list[str]:
    parts = []
    for ablation in told["ablations"]:
        lines = [
            f"- {line['statement']}: {line['with'] or 'not measured'} with it ({line['intact']}), "
            f"{line['without'] or 'not measured'} without ({line['verdict']})"
            for line in ablation["lines"]
        ]
        unsound = "\n\nThis ablation shows nothing here." if ablation["sound"] is False else ""
        parts.append(f"Ablation: {ablation['removes']}." + ("\n\n" + "\n".join(lines) if lines else "") + unsound)
    return parts


def _safe(cell: str) -> str:
    """A cell of a table: a bar would end it."""
    return cell.replace("|", "\\|").replace("\n", " ")
