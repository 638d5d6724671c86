"""A run folder as the report sees it: the summary if there is one, and whatever the events tell without it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from underhood.core.errors import UserError
from underhood.core.runlog import read_events
from underhood.recipes.published_run import refuse_published
from underhood.recipes.stages.display import job_stages

Event = dict[str, Any]
Status = Literal["done", "stopped", "missing"]


@dataclass(frozen=True)
class RecordedStage:
    """One stage of a run.

    Attributes:
        status: done; stopped (begun, never ended); or missing (never begun).
        seconds: its duration; for a stopped stage the time up to its last event.
        tokens: tokens read in training, None where that means nothing.
        step, steps: updates made and planned.
        utilisation: last logged share of the machine's measured limit, 0 to 1.
        facts: everything else that the run recorded about it.
    """

    name: str
    status: Status
    seconds: float | None = None
    tokens: int | None = None
    step: int | None = None
    steps: int | None = None
    utilisation: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordedRun:
    """Everything that was read from a run folder.

    Attributes:
        summary: summary.json; if the run has not got that far, as much of it as its notes hold.
        events: events.jsonl in order.
        config: run.toml; empty if there is none.
        stages: all stages by name, in the order of the pipeline.
    """

    path: Path
    summary: Mapping[str, Any]
    events: list[Event]
    config: Mapping[str, Any]
    stages: Mapping[str, RecordedStage]

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def of(self, stage: str, kind: str) -> list[Event]:
        """The events of one kind in one stage."""
        return [event for event in self.events if event.get("stage") == stage and event.get("kind") == kind]


def read_run(path: Path) -> RecordedRun:
    """Reads a run folder, complete or not.

    Raises:
        UserError: there is no such folder, nothing in it that a run writes, or one of its files is damaged.
    """
    if not path.is_dir():
        refuse_published(path)
        raise UserError(f"there is no run folder {path}", fix="underhood build --out runs/NAME makes one")
    files = [path / name for name in ("summary.json", "events.jsonl", "run.toml")]
    if not any(file.is_file() for file in files):
        refuse_published(path)
        raise UserError(f"{path} is not a run folder", expected="summary.json, events.jsonl or run.toml in it")
    summary = _json(path / "summary.json") or _notes(path)
    events = list(read_events(path / "events.jsonl"))
    stages = {name: _stage(name, summary, events) for name in job_stages()}
    return RecordedRun(path=path, summary=summary, events=events, config=_read_config(path / "run.toml"), stages=stages)


def steps_of(run: RecordedRun, stage: str) -> list[Event]:
    """The `step` events of a stage, each step once and rising."""
    return logged_once(run.of(stage, "step"))


def logged_once(events: Sequence[Event]) -> list[Event]:
    """Events of one kind, each step once and rising.

    A run that was killed and resumed, or a stage that was run again, logs steps twice: the later ones count, and
    whatever the earlier attempt logged at or beyond them is dropped.
    """
    kept: list[Event] = []
    for event in events:
        if not isinstance(event.get("step"), int):
            continue
        while kept and kept[-1]["step"] >= event["step"]:
            kept.pop()
        kept.append(event)
    return kept


def _notes(path: Path) -> Mapping[str, Any]:
    """What data.json, plan.json and results.json tell, under the names that summary.json would give it."""
    data, plan, results = ({**_json(path / f"{name}.json")} for name in ("data", "plan", "results"))
    tokenizer, planned = data.pop("tokenizer", None), plan.get("plan") or {}
    notes = {
        "corpus": data,
        "tokenizer": tokenizer,
        "spec": planned.get("model"),
        "plan": {"reason": planned.get("reason")},
        "results": results.get("table"),
        "samples": results.get("samples"),
    }
    return {key: value for key, value in notes.items() if value}


def _json(file: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{file} is damaged: {error}", fix="Delete it; the report does without it") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} is damaged", expected="one JSON object", fix="Delete it")
    return content


def _read_config(file: Path) -> Mapping[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:  # not UTF-8, or not TOML
        raise UserError(f"{file} is damaged: {error}", fix="Delete it; the report does without it") from error


def _stage(name: str, summary: Mapping[str, Any], events: list[Event]) -> RecordedStage:
    own = [event for event in events if event.get("stage") == name]
    recorded = next((dict(item) for item in summary.get("stages") or [] if item.get("name") == name), None)
    begun = max((index for index, event in enumerate(own) if event.get("kind") == "start"), default=0)
    ended = next((event for event in reversed(own[begun:]) if event.get("kind") == "end"), None)
    last = next((event for event in reversed(own) if event.get("kind") == "step"), {})
    known = {key: value for key, value in last.items() if key in ("step", "steps", "tokens", "utilisation")}
    if recorded is not None or ended is not None:
        facts = {key: value for key, value in (ended or {}).items() if key not in ("time", "stage", "kind")}
        facts |= {key: value for key, value in (recorded or {}).items() if value is not None and key != "name"}
        if "steps" in facts:  # of a finished stage
            known["step"] = facts["steps"]
        merged = known | facts
        return RecordedStage(name, "done", **_typed(merged), facts=facts)
    if own:
        spent = _number(own[-1].get("time")) - _number(own[begun].get("time"))
        facts = {key: value for key, value in own[begun].items() if key not in ("time", "stage", "kind")}
        return RecordedStage(name, "stopped", **_typed(facts | known | {"seconds": spent}), facts=facts)
    return RecordedStage(name, "missing")


def _typed(facts: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("seconds", "tokens", "step", "steps", "utilisation")
    return {key: facts[key] for key in wanted if isinstance(facts.get(key), (int, float))}


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
