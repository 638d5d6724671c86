"""Puts the page together: template, style, script and facts become one file that needs nothing else.

Whatever comes from data is escaped by the template engine, and the page's content security policy allows nothing but
its own two scripts (`ui.theme`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from underhood.core.files import write_text
from underhood.recipes.report import conclusions
from underhood.recipes.report.anatomy import PARTS, Anatomy, anatomy
from underhood.recipes.report.curves import curves
from underhood.recipes.report.film import film_strips
from underhood.recipes.report.pipeline import GLYPH_HEIGHT, GLYPH_WIDTH, NODE, ROW, WIDE, pipeline, stage_flops
from underhood.recipes.report.reproduce_commands import commands, machine, resume
from underhood.recipes.report.results import panels
from underhood.recipes.report.run_reader import RecordedRun, read_run
from underhood.recipes.report.tokens import MOST, chips
from underhood.recipes.stages.display import (
    best_weights,
    hue_of,
    job_stages,
    marks,
    model_hue,
    model_title,
    short_title_of,
    stage_css,
    title_of,
    trained_stages,
)
from underhood.recipes.stages.registry import find_model
from underhood.ui import formatting
from underhood.ui.curves import Curve
from underhood.ui.theme import page_renderer
from underhood.ui.visible_bytes import visible

_render = page_renderer(Path(__file__).parent, visible=lambda text: visible(str(text).encode("utf-8", "surrogatepass")))
KINDS = {
    "passages-describe": "Functions it has never seen, from their passage",
    "passages-parameters": "Parameters, from the passage",
    "passages-invented": "Functions that do not exist, after a search",
    "passages-sentence": "Sentences it has never seen, from their passage",
    "seen": "Functions it has read about, from memory",
    "held-out": "Functions it has never seen, from memory",
    "invented": "Functions that do not exist, from memory",
    "chat": "General questions, without a passage",
    "free": "Anything else",
}
SECTIONS = (  # anchor, label, and the fact without which the section is left out
    ("pipeline", "Pipeline", None),
    ("curves", "Curves", "curves"),
    ("film", "Film", "film"),
    ("results", "Results", "panels"),
    ("answers", "Answers", "groups"),
    ("tokens", "Tokens", "chips"),
    ("data", "Data", "corpus"),
    ("model", "Model", "anatomy"),
    ("again", "Again", None),
)
TEXT_KINDS = {"seen": "Texts it has read", "held-out": "Texts it has never seen"}
LONG_ANSWER = 420
"""Characters of an answer after which the rest is folded away."""


def write_report(run: Path) -> Path:
    """Writes ``report.html`` into a run folder, from whatever the run has recorded so far, and returns its path.

    Raises:
        UserError: the folder is not a run, one of its files is damaged, or the place can't be written.
    """
    target = run / "report.html"
    write_text(target, render(read_run(run)))
    return target


def render(run: RecordedRun) -> str:
    """The whole page."""
    return _render("report.html.j2", ["report.css"], ["report.js"], **_context(run))


def _context(run: RecordedRun) -> dict[str, Any]:
    summary = run.summary
    body = anatomy(summary.get("spec"))
    functions = ((summary.get("corpus") or {}).get("name") or run.config.get("data")) == "pydocs"
    tokenizer: Mapping[str, Any] = summary.get("tokenizer") or {}
    results: Mapping[str, Any] = summary.get("results") or {}
    strip = chips(tokenizer.get("sample") or [], tokenizer.get("vocab_size") or 0)
    drawn = {stage: curves(run, stage) for stage in trained_stages()}
    losses: dict[str, Curve] = {stage: stage_curves[0] for stage, stage_curves in drawn.items() if stage_curves}
    measured, judged = panels(results, functions), conclusions.judgements(results, functions)
    choice = next((panel for key in ("choice-seen", "choice-held-out") for panel in measured if panel.key == key), None)
    accuracies = [(row.hue, row.value) for row in choice.rows if find_model(row.hue)] if choice else []
    context: dict[str, Any] = {
        "run": run,
        "summary": summary,
        "n": formatting,
        "title": conclusions.title(run, body.total if body else None),
        "lede": conclusions.lede(measured, judged),
        "gaps": conclusions.gaps(run),
        "warnings": summary.get("warnings") or [],
        "resume": resume(run),
        "pipeline": pipeline(run, body, losses, strip, accuracies),
        "size": {"wide": WIDE, "node": NODE, "glyph": GLYPH_WIDTH, "glyph_height": GLYPH_HEIGHT, "row": ROW},
        "costs": _costs(run, body),
        "curves": [curve for stage in trained_stages() for curve in drawn[stage]],
        "film": film_strips(run),
        "curve_labels": {stage: title_of(stage) for stage in drawn},
        "marks": marks(),
        "hue_of": hue_of,
        "stage_css": Markup(stage_css()),
        "panels": measured,
        "changes": conclusions.changes(results, functions),
        "judgements": judged,
        "groups": _samples(summary, functions),
        "chips": strip,
        "strip_cut": len(tokenizer.get("sample") or []) > MOST,
        "tokenizer": tokenizer,
        "corpus": summary.get("corpus") or {},
        "flow": _flow(summary.get("corpus") or {}),
        "anatomy": body,
        "parts": _parts(body),
        "reason": (summary.get("plan") or {}).get("reason"),
        "planned": _planned(run),
        "machine": machine(summary),
        "commands": commands(run),
        "notes": _notes(run),
    }
    return context | {"sections": [(key, label) for key, label, needs in SECTIONS if needs is None or context[needs]]}


def _costs(run: RecordedRun, body: Anatomy | None) -> list[dict[str, str]]:
    rows = []
    for name in job_stages():
        stage = run.stages[name]
        if stage.status == "missing" or stage.seconds is None:
            continue
        spent = stage_flops(run, name, body)
        speed = stage.tokens / stage.seconds if stage.tokens and stage.seconds and name in trained_stages() else None
        rows.append(
            {
                "name": short_title_of(name),
                "hue": hue_of(name),
                "seconds": formatting.duration(stage.seconds),
                "steps": formatting.whole(stage.step) if stage.step and name in trained_stages() else "",
                "tokens": formatting.count(stage.tokens) if stage.tokens and name in trained_stages() else "",
                "speed": f"{formatting.count(speed)}/s" if speed else "",
                "flops": formatting.flops(spent) if spent else "",
                "limit": formatting.percent(stage.utilisation) if stage.utilisation else "",
            }
        )
    return rows


def _samples(summary: Mapping[str, Any], functions: bool) -> list[dict[str, Any]]:
    """The questions by kind, each with every model's answer, long ones in two parts."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for sample in summary.get("samples") or []:
        answers = []
        for stage, answer in (sample.get("answers") or {}).items():
            text = str(answer.get("text", "")).strip("\n")
            ended = answer.get("ended")
            answers.append(
                {
                    "stage": model_title(stage),
                    "hue": model_hue(stage),
                    "text": text if len(text) <= LONG_ANSWER * 1.25 else text[:LONG_ANSWER],
                    "rest": "" if len(text) <= LONG_ANSWER * 1.25 else text[LONG_ANSWER:],
                    "end": "" if ended is None else "ended by itself" if ended else "cut off at the length limit",
                    "exact": bool(sample.get("expected")) and text.strip() == str(sample.get("expected")).strip(),
                }
            )
        kind = str(sample.get("kind") or "free")
        groups.setdefault(kind, []).append(
            {"prompt": str(sample.get("prompt", "")), "expected": sample.get("expected"), "answers": answers}
        )
    order = [*KINDS, *groups]
    return [
        {
            "title": (KINDS if functions else {**KINDS, **TEXT_KINDS}).get(kind, kind),
            "key": kind,
            "samples": groups[kind],
        }
        for kind in dict.fromkeys(order)
        if kind in groups
    ]


def _flow(corpus: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What became of the documents: trained on, held out, dropped and why; with shares of all documents."""
    parts = []
    for key, label in (("train", "trained on"), ("held_out", "held out")):
        share: Mapping[str, Any] = corpus.get(key) or {}
        if share.get("documents"):
            size = formatting.size(share["bytes"]) if share.get("bytes") else ""
            tokens = formatting.count(share["tokens"]) if share.get("tokens") else ""
            parts.append({"label": label, "hue": key, "documents": share["documents"], "size": size, "tokens": tokens})
    for why, number in (corpus.get("dropped") or {}).items():
        if number:
            parts.append({"label": f"dropped: {why}", "hue": "dropped", "documents": number, "size": "", "tokens": ""})
    total = sum(share["documents"] for share in parts)
    return [share | {"share": 100 * share["documents"] / total} for share in parts]


def _parts(body: Anatomy | None) -> list[dict[str, Any]]:
    if body is None:
        return []
    return [
        {"key": key, "label": PARTS[key], "count": formatting.count(value), "share": 100 * value / body.total}
        for key, value in body.parts.items()
    ]


def _planned(run: RecordedRun) -> list[dict[str, str]]:
    """Planned and real seconds of each training stage."""
    stages: Mapping[str, Any] = (run.summary.get("plan") or {}).get("stages") or {}
    rows = []
    for name in trained_stages():
        plan, real = stages.get(name) or {}, run.stages[name]
        if plan.get("seconds") and real.seconds and real.status == "done":
            off = real.seconds / plan["seconds"] - 1
            rows.append(
                {
                    "name": short_title_of(name),
                    "hue": hue_of(name),
                    "planned": formatting.duration(plan["seconds"]),
                    "real": formatting.duration(real.seconds),
                    "off": f"{formatting.signed(100 * off, 0)}{formatting.NBSP}%",
                }
            )
    return rows


def _notes(run: RecordedRun) -> list[str]:
    """What happened on the way that a reader should know: resumptions, steps without update, notes of the stages."""
    notes = [
        f"{event['stage']}: {event['text']}"
        for event in run.events
        if event.get("kind") == "note" and event.get("text") and event.get("stage")
    ]
    notes += [f"{event['stage']}: {best_weights(event)}" for event in run.events if event.get("kind") == "best"]
    for name in trained_stages():
        if skipped := len(run.of(name, "skip")):
            notes.append(f"{name}: {skipped} step{'s' if skipped > 1 else ''} without update (loss not finite)")
    return notes
