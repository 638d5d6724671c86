"""Conclusions of a report: the numbers in sentences.

Every sentence follows from an interval or a count; none is written by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underhood.recipes.report.metric_labels import MetricLabel, metric_label
from underhood.recipes.report.results import Panel, shown, stage_measurements
from underhood.recipes.report.run_reader import RecordedRun
from underhood.recipes.stages.display import model_hue, model_title, title_of, trained_stages
from underhood.recipes.stages.registry import Stage, find_model
from underhood.ui import formatting

VERDICTS = {"helped": "helped", "no difference": "no difference", "hurt": "made it worse"}


@dataclass(frozen=True)
class Change:
    """What one stage did to one quantity: a row of the comparison table."""

    stage: str
    hue: str
    quantity: str
    before: str
    after: str
    difference: str
    verdict: str
    word: str


def title(run: RecordedRun, counted: int | None) -> str:
    """What was built: ``A 3.34 M-parameter language model, built from pydocs in 4 min 56 s``.

    Args:
        counted: parameters of the planned model, for a run that has no summary yet.
    """
    parameters = run.summary.get("parameters") or counted
    size = f"{formatting.count(parameters)}-parameter" if parameters else "small"
    article = "An" if size.startswith(("8", "11", "18")) else "A"
    corpus = (run.summary.get("corpus") or {}).get("name") or run.config.get("data")
    measured, start = stage_measurements(run.summary.get("results") or {}), run.config.get("from_")
    if start:
        name = Path(str(start)).name
        made = f", fine-tuned from {name} on" if measured else f" in the making, from {name} and"
    else:
        made = ", built from" if measured else " in the making, from"
    source = f"{made} {_source(str(corpus))}" if corpus else ""
    seconds = run.summary.get("seconds")
    spent = f" in {formatting.duration(seconds)}" if seconds else ""
    return f"{article} {size} language model{source}{spent}"


def lede(measured: Sequence[Panel], judged: Sequence[Judgement]) -> list[str]:
    """One to four sentences on how well it does, good and bad alike."""
    by_key = {panel.key: panel for panel in measured}
    sentences = [_prediction(by_key.get("bits-per-byte")), _choice(by_key), _manners(by_key)]
    sentences += [judgement.text for judgement in judged if not judgement.helped]  # where nobody can miss it
    return [sentence for sentence in sentences if sentence]


def changes(results: Mapping[str, Any], functions: bool = True) -> list[Change]:
    """The comparisons of consecutive stages, as rows."""
    units, values = _lookup(results)
    rows = []
    for item in results.get("comparisons") or []:
        name, before, after = str(item.get("name")), str(item.get("before")), str(item.get("after"))
        unit = units.get(name, "share")
        verdict = str(item.get("verdict"))
        rows.append(
            Change(
                stage=model_title(after),
                hue=model_hue(after),
                quantity=metric_label(name, functions).short,
                before=shown(unit, values[name, before]) if (name, before) in values else "–",
                after=shown(unit, values[name, after]) if (name, after) in values else "–",
                difference=_difference(unit, item),
                verdict=verdict.replace(" ", "-"),
                word=VERDICTS.get(verdict, verdict),
            )
        )
    return rows


@dataclass(frozen=True)
class Judgement:
    """What one stage did, in a sentence; `helped` is False where nothing comparable got better."""

    text: str
    helped: bool


def judgements(results: Mapping[str, Any], functions: bool = True) -> list[Judgement]:
    """One per stage that has an earlier one: what it made better, what worse, or that it did not help."""
    by_stage: dict[str, dict[str, list[str]]] = {}
    for item in results.get("comparisons") or []:
        kinds = by_stage.setdefault(str(item.get("after")), {"helped": [], "hurt": [], "no difference": []})
        kinds.setdefault(str(item.get("verdict")), []).append(metric_label(str(item.get("name")), functions).short)
    sentences = []
    for stage, kinds in by_stage.items():
        record = find_model(stage)
        name = record.title if record else stage
        better, worse, same = kinds["helped"], kinds["hurt"], kinds["no difference"]
        if better:
            sentence = f"{name} made {_and(better)} better"
            sentence += f", and {_and(worse)} worse" if worse else ""
            if same:
                where = _and(same) if len(same) <= 2 else f"the {len(same)} other measurements"
                sentence += f"; on {where} no difference could be measured"
        elif record and (new := _measured_first(record, results, functions)):
            sentence = f"{name} improved nothing that was measured before it"
            sentence += f", and made {_and(worse)} worse" if worse else ""
            sentence += f"; what it is there for, such as {_and(new[:2])}, could only be measured from here on"
        else:
            sentence = f"{name} did not help here: nothing that was measured got better"
            sentence += f", and {_and(worse)} got worse" if worse else ""
        sentences.append(Judgement(sentence + ".", bool(better)))
    return sentences


def _measured_first(record: Stage, results: Mapping[str, Any], functions: bool) -> list[str]:
    """What the stage must improve and no model before it was measured by."""
    compared = {str(item.get("name")) for item in results.get("comparisons") or [] if item.get("after") == record.model}
    known = {metric_label(name, functions).key for name in compared}
    measured = {_label(item, functions).key for item in stage_measurements(results).get(record.model, ())}
    aims = (metric_label(name, functions) for name in record.improves)
    return [aim.short for aim in aims if aim.key in measured - known]


def _label(measurement: Mapping[str, Any], functions: bool) -> MetricLabel:
    return metric_label(str(measurement.get("name")), functions)


def gaps(run: RecordedRun) -> list[str]:
    """What this run lacks, a sentence each."""
    missing = []
    for name in trained_stages():
        stage = run.stages[name]
        if stage.status == "stopped":
            at = f" after step {formatting.whole(stage.step)}" if stage.step else ""
            at += f" of {formatting.whole(stage.steps)}" if stage.step and stage.steps else ""
            missing.append(f"{title_of(name)} was interrupted{at}.")
        elif stage.status == "missing" and name in _planned(run):
            missing.append(f"{title_of(name)} has not been run.")
    if not stage_measurements(run.summary.get("results") or {}):
        missing.append("Nothing has been measured yet.")
    return missing


def _planned(run: RecordedRun) -> set[str]:
    """The training stages of this run: those that its plan holds, or all where there is no plan yet."""
    stages = (run.summary.get("plan") or {}).get("stages")
    return set(stages) if stages else set(trained_stages())


def _prediction(panel: Panel | None) -> str:
    if panel is None:
        return ""
    models = [row for row in panel.rows if find_model(row.hue)]
    peers = [row for row in panel.rows if row.hue == "baseline"]
    if not models:
        return ""
    best = min(models, key=lambda row: row.value)
    sentence = f"On text it has never seen, {_model(best.hue)} needs {best.text} bits per byte"
    if best.interval:
        sentence += f" (95{formatting.NBSP}% interval {best.interval})"
    if peers:
        rival = min(peers, key=lambda row: row.value)
        gap = rival.value - best.value
        relation = "better" if gap > 0 else "worse"
        sentence += f", {formatting.decimal(abs(gap), 3)} {relation} than {rival.name}, the strongest baseline"
        if best.low is not None and best.high is not None and best.low <= rival.at <= best.high:
            sentence += ", a difference too small to be sure of"
    return sentence + "."


def _choice(by_key: Mapping[str, Panel]) -> str:
    seen, held_out = by_key.get("choice-seen"), by_key.get("choice-held-out")
    last = _last(seen or held_out)
    if last is None:
        return ""
    parts = []
    for panel in (seen, held_out):
        row = panel.row(last) if panel else None
        if panel and row:
            parts.append(f"{row.text} of {panel.label.noun}")
    panel = held_out or seen
    chance = panel.reference if panel else None
    row = panel.row(last) if panel else None
    tail = ""
    if panel and chance and row:
        tail = " (chance is 25\u00a0%)" if chance[1].startswith("chance 25") else ""
        if row.low is not None and row.high is not None and row.low <= chance[0] <= row.high:
            tail += f"; the latter can’t be told from {'chance' if tail else 'guessing'}"
    choices = "summaries" if "functions" in "".join(parts) else "continuations"
    return f"Among four {choices} {_model(last)} picks the right one for {' and '.join(parts)}{tail}."


def _manners(by_key: Mapping[str, Panel]) -> str:
    parts = []
    hue = None
    for key, verb in (("ends", "ends {} of its answers properly"), ("refusal", "refuses {} of invented functions")):
        panel = by_key.get(key)
        hue = hue or _last(panel)
        row = panel.row(hue) if panel and hue else None
        if row is not None:
            parts.append(verb.format(row.text))
    return f"It {' and '.join(parts)}." if parts else ""


def _last(panel: Panel | None) -> str | None:
    """The most trained model of a panel."""
    stages = [row.hue for row in panel.rows if find_model(row.hue)] if panel else []
    return stages[-1] if stages else None


def _model(hue: str) -> str:
    name = model_title(hue)
    return f"the {name if name.isupper() else name.lower()} model" if find_model(hue) else hue


def _source(name: str) -> str:
    return "Python’s own documentation" if name == "pydocs" else name


def _difference(unit: str, item: Mapping[str, Any]) -> str:
    def told(number: Any) -> str:
        if unit == "share":
            return formatting.signed(100 * float(number), 1)
        return formatting.signed(float(number), 2 if unit == "nats" else 3)

    if not isinstance(item.get("difference"), (int, float)):
        return "–"
    text = told(item["difference"]) + (" points" if unit == "share" else "")
    if isinstance(item.get("low"), (int, float)) and isinstance(item.get("high"), (int, float)):
        text += f" ({told(item['low'])} to {told(item['high'])})"
    return text


def _lookup(results: Mapping[str, Any]) -> tuple[dict[str, str], dict[tuple[str, str], float]]:
    units: dict[str, str] = {}
    values: dict[tuple[str, str], float] = {}
    for stage, measurements in stage_measurements(results).items():
        for item in measurements:
            units[str(item.get("name"))] = str(item.get("unit", "share"))
            if isinstance(item.get("value"), (int, float)):
                values[str(item.get("name")), stage] = float(item["value"])
    return units, values


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
