"""Run folders as the pages show them: the list, one run, and what differs between two."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.infer.stages import CHECKPOINT_FOLDERS, SNAPSHOTS, steps_on_disk
from underhood.recipes.finetune_spec import DISTILL_FILE, FINETUNE_FILE, PREFERENCE_FILE, REWARD_FILE
from underhood.recipes.report.reproduce_commands import resume
from underhood.recipes.report.results import panels
from underhood.recipes.report.run_reader import RecordedRun, read_run
from underhood.recipes.stages.display import drawn_stages, hue_of, model_hue, short_title_of, title_of
from underhood.recipes.stages.registry import all_stages, find_stage
from underhood.ui.curves import Curve
from underhood.web.run_tail import RunTail, Training

SIGNS = ("events.jsonl", "summary.json", "run.toml")
SPARK = 40
"""Points of the small curve in the list."""


class Runs:
    """The run folders in some places. Logs are followed, so looking again costs only what was written meanwhile.

    Args:
        places: folders of runs, or runs themselves.
    """

    def __init__(self, places: Sequence[Path]):
        self.places = tuple(places)
        self._tails: dict[Path, RunTail] = {}
        self._lock = threading.Lock()

    def folders(self) -> dict[str, Path]:
        """The runs there are by name; of two with the same name the first place's."""
        runs: dict[str, Path] = {}
        for where in self.places:
            children = sorted(where.iterdir()) if where.is_dir() and not _is_run(where) else [where]
            for folder in children:
                if _is_run(folder):
                    runs.setdefault(folder.resolve().name, folder)
        return runs

    def folder(self, name: str) -> Path:
        """A run's folder.

        Raises:
            UserError: there is none of that name in the places.
        """
        folders = self.folders()
        if name not in folders:
            near = nearest(name, folders)
            there = f"There are {', '.join(list(folders)[:8])}" if folders else "underhood build makes one"
            raise UserError(f"there is no run {name!r}", fix=f"Did you mean {near}?" if near else there)
        return folders[name]

    def tail(self, name: str) -> RunTail:
        """A run's log up to now."""
        folder = self.folder(name)
        with self._lock:
            tail = self._tails.setdefault(folder, RunTail(folder))
        return tail.refresh()

    def overview(self) -> list[dict[str, Any]]:
        """All runs, the one with the latest event first."""
        rows = [self._row(name, folder) for name, folder in self.folders().items()]
        return sorted(rows, key=lambda row: -row["updated"])

    def _row(self, name: str, folder: Path) -> dict[str, Any]:
        tail = self.tail(name)
        # What goes on while it goes on, else how well the language was learnt.
        stage = tail.open if tail.open in tail.training else next(iter(tail.training), None)
        training = tail.training[stage] if stage is not None else Training()
        curve = next(iter(training.curves(stage).values()), None) if stage is not None else None
        summary, plan = _json(folder / "summary.json"), next((e for e in tail.events if "parameters" in e), {})
        begun = next((event for event in tail.events if event.get("data")), {})
        return {
            "name": name,
            "folder": str(folder),
            "status": tail.status(),
            "stage": tail.open or stage,
            "hue": hue_of(stage or ""),
            "step": training.steps[-1] if training.steps else None,
            "steps": training.planned,
            "seconds_left": training.seconds_left if tail.open == stage else None,
            "updated": tail.time,
            "parameters": summary.get("parameters") or plan.get("parameters"),
            "data": (summary.get("corpus") or {}).get("name") or begun.get("data"),
            "value": None if curve is None else curve.value(curve.y[-1]),
            "title": None if curve is None else curve.title,
            "spark": None if curve is None else _spark(curve),
            "models": [checkpoint["stage"] for checkpoint in checkpoints(folder) if checkpoint["newest"]],
        }

    def live(self, name: str) -> dict[str, Any]:
        """All that changes while a run goes on: its curves, its events, and how far it has come."""
        tail = self.tail(name)
        return {
            "seen": tail.seen,
            "status": tail.status(),
            "open": tail.open,
            "updated": tail.time,
            "stages": [
                {
                    "stage": stage,
                    "label": title_of(stage),
                    "hue": hue_of(stage),
                    "step": training.steps[-1],
                    "steps": training.planned,
                    "seconds_left": training.seconds_left if tail.open == stage else None,
                    "tokens_per_second": training.last("tokens_per_second"),
                    "curves": [_drawable(key, curve) for key, curve in training.curves(stage).items()],
                }
                for stage, training in tail.training.items()
                if training.steps
            ],
            "events": [_brief(event) for event in tail.events[-200:]],
        }

    def whole(self, name: str) -> dict[str, Any]:
        """What stays as it is between two stages: settings, checkpoints, results, recorded samples."""
        folder = self.folder(name)
        run, tail = read_run(folder), self.tail(name)
        summary = run.summary
        return {
            "name": name,
            "folder": str(folder),
            "resume": resume(run) if (folder / "run.toml").is_file() else None,
            "created": summary.get("created"),
            "commit": summary.get("commit"),
            "parameters": summary.get("parameters"),
            "reason": (summary.get("plan") or {}).get("reason"),
            "pipeline": [
                {
                    "stage": stage,
                    "title": short_title_of(stage),
                    "hue": hue_of(stage),
                    **_facts(run, stage),
                }
                for stage in drawn_stages()
            ],
            "settings": settings(run),
            "checkpoints": [
                checkpoint | {"seconds": tail.seconds_into(_training_of(checkpoint["stage"]), checkpoint["step"])}
                for checkpoint in checkpoints(folder)
            ],
            "films": [
                {"stage": stage, "label": short_title_of(stage), "hue": hue_of(stage)} | film
                for stage, film in tail.films().items()
            ],
            "results": results(run),
            "samples": summary.get("samples") or [],
            "examples": summary.get("examples") or [],
            "report": (folder / "report.html").is_file(),
        }

    def difference(self, a: str, b: str) -> dict[str, Any]:
        """Two runs side by side: every setting, every result, and the curves of the stages that both have."""
        pair = [read_run(self.folder(name)) for name in (a, b)]
        told, measured = [settings(run) for run in pair], [results(run) for run in pair]
        rows = [
            {"key": key, "a": told[0].get(key), "b": told[1].get(key), "same": told[0].get(key) == told[1].get(key)}
            for key in dict.fromkeys([*told[0], *told[1]])
        ]
        return {"settings": rows, "results": _pairs(measured[0], measured[1])}


def settings(run: RecordedRun) -> dict[str, Any]:
    """All that was decided about a run as flat ``key: value``: its settings, then its plan, model and machine."""
    files = (FINETUNE_FILE, DISTILL_FILE, PREFERENCE_FILE, REWARD_FILE)
    own = next((table for name in files if (table := _toml(run.path / name))), run.config)
    told: dict[str, Any] = dict(_flat(own))
    summary = run.summary
    for name, table in (("model", summary.get("spec")), ("plan", (summary.get("plan") or {}).get("stages"))):
        told |= {f"{name}.{key}": value for key, value in _flat(table or {})}
    corpus: Mapping[str, Any] = summary.get("corpus") or {}
    told |= {f"data.{key}": corpus[key] for key in ("name", "digest", "documents", "bytes") if key in corpus}
    told |= {f"machine.{key}": value for key, value in _flat(summary.get("machine") or {})}
    told |= {f"version.{key}": value for key, value in _flat(summary.get("versions") or {})}
    return told | {key: summary[key] for key in ("commit", "seconds", "peak_memory_gb") if summary.get(key) is not None}


def checkpoints(folder: Path) -> list[dict[str, Any]]:
    """What is on disk of every stage in order of training: its snapshots, and the newest two or so checkpoints."""
    entries = []
    order = [stage.model for stage in all_stages()]
    names = {path.name for kind in CHECKPOINT_FOLDERS for path in (folder / kind).glob("*") if path.is_dir()}
    for name in sorted(names, key=lambda name: (order.index(name) if name in order else -1, name)):
        paths = steps_on_disk(folder, name)
        for step, path in sorted(paths.items()):
            weights = path / "model.safetensors"
            entries.append(
                {
                    "stage": name,
                    "hue": model_hue(name),
                    "step": step,
                    "name": path.name,
                    "bytes": weights.stat().st_size if weights.is_file() else None,
                    "snapshot": path.parents[1].name == SNAPSHOTS,
                    "newest": step == max(paths) and path.parents[1].name != SNAPSHOTS,
                }
            )
    return entries


def results(run: RecordedRun) -> list[dict[str, Any]]:
    """Every measurement, in the report's words and order."""
    table: Mapping[str, Any] = run.summary.get("results") or {}
    functions = (run.summary.get("corpus") or {}).get("name") == "pydocs"
    return [
        {
            "key": panel.key,
            "question": panel.label.short,
            "better": panel.better,
            "rows": [
                {"name": row.name, "hue": row.hue, "text": row.text, "interval": row.interval, "value": row.value}
                for row in panel.rows
            ],
        }
        for panel in panels(table, functions)
    ]


def _training_of(model: str) -> str:
    """The stage that trains a model; the model's own name where none does."""
    return next((stage.name for stage in all_stages() if stage.model == model), model)


def _pairs(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Measurements of two runs by question and model, in the first's order."""
    cells: dict[tuple[str, str], dict[str, Any]] = {}
    for side, measured in (("a", first), ("b", second)):
        for panel in measured:
            for row in panel["rows"]:
                key = (panel["key"], row["name"])
                names = {name: panel[name] for name in ("question", "better")} | {k: row[k] for k in ("name", "hue")}
                cells.setdefault(key, names | {"a": None, "b": None})[side] = row
    return list(cells.values())


def _facts(run: RecordedRun, name: str) -> dict[str, Any]:
    stage = run.stages[name]
    known = {
        key: value for key, value in asdict(stage).items() if key in ("status", "seconds", "tokens", "step", "steps")
    }
    return known if find_stage(name) else known | {"tokens": None, "step": None, "steps": None}


def _drawable(key: str, curve: Curve) -> dict[str, Any]:
    fields = asdict(curve) | {"key": key, "share": curve.share, "last": curve.last, "description": curve.description}
    return {name: value for name, value in fields.items() if name not in ("stage", "label")}


def _spark(curve: Curve) -> list[tuple[float, float]]:
    every = max(1, len(curve.x) // SPARK)
    drawn = sorted({*range(0, len(curve.x), every), len(curve.x) - 1})
    return [(curve.left(curve.x[index]), curve.up(curve.y[index])) for index in drawn]


def _brief(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event without the long lists that no line of a log can show."""
    return {
        key: value for key, value in event.items() if isinstance(value, (str, int, float)) and len(str(value)) < 400
    }


def _flat(tree: Any, name: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested tables and lists as ``a.b.0: value``."""
    if isinstance(tree, Mapping) and tree:
        return [leaf for key, item in tree.items() for leaf in _flat(item, f"{name}.{key}" if name else str(key))]
    if isinstance(tree, list) and any(isinstance(item, (Mapping, list)) for item in tree):
        return [leaf for number, item in enumerate(tree) for leaf in _flat(item, f"{name}.{number}")]
    return [(name, tree)] if name else []


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and any((folder / sign).is_file() for sign in SIGNS)


def _json(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one while it is missing or damaged: a list of runs must not fail for one of them."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
