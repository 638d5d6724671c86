"""A run is a folder: its settings, its log, its tokenizer, its checkpoints, its report."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.core.files import storage_errors, write_text
from underhood.core.runlog import RunLog
from underhood.core.toml import read_toml, toml_text
from underhood.recipes.spec import BuildSpec
from underhood.text.bpe import BytePairTokenizer
from underhood.train.plan import Plan

MODEL_STAGES = ("base", "sft", "dpo")
"""The models that a build leaves behind, in order; also the names of their checkpoint folders."""


@dataclass
class Run:
    """An open run folder."""

    path: Path
    spec: BuildSpec
    log: RunLog

    @classmethod
    def create(cls, path: Path, spec: BuildSpec) -> "Run":
        """Makes the folder and writes ``run.toml``.

        Raises:
            UserError: there is a run already, or the place can't be written.
        """
        if (path / "run.toml").exists():
            raise UserError(
                f"{path} already holds a run", fix=f"Go on with it by --resume, or choose another --out than {path}"
            )
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file", expected="a folder to make or an empty one")
        with storage_errors(path, "Choose another --out"):
            path.mkdir(parents=True, exist_ok=True)
        write_text(path / "run.toml", toml_text(to_json(spec)))
        return cls(path, spec, RunLog(path / "events.jsonl"))

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Opens an existing run.

        Raises:
            UserError: no such run (the nearest others are named), or a damaged ``run.toml``.
        """
        file = path / "run.toml"
        if not file.exists():
            raise UserError(
                f"there is no run in {path}", expected="a folder that underhood build made", fix=_others(path)
            )
        spec = from_json(BuildSpec, read_toml(file), where=str(file))
        return cls(path, spec, RunLog(path / "events.jsonl"))

    def with_spec(self, **changes: Any) -> "Run":
        """The same run under settings of which some differ (a stage run again by hand)."""
        return replace(self, spec=replace(self.spec, **changes))

    @property
    def tokenizer_file(self) -> Path:
        return self.path / "tokenizer.json"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    @cached_property
    def tokenizer(self) -> BytePairTokenizer:
        return BytePairTokenizer.load(self.tokenizer_file)

    def shards(self, part: str) -> Path:
        """Folder of the token shards of ``train`` or ``held_out``."""
        return self.path / "data" / part

    def checkpoints(self, stage: str) -> Path:
        return self.path / "checkpoints" / stage

    def finished(self, stage: str) -> bool:
        """True when the stage's newest checkpoint is its last."""
        path = newest(self.checkpoints(stage))
        if path is None:
            return False
        state = read_checkpoint(path).state
        return state.get("step") == state.get("steps")

    # What is decided or found out once and needed by a resumed run: small JSON files in the folder.

    def note(self, name: str) -> dict[str, Any] | None:
        file = self.path / f"{name}.json"
        if not file.exists():
            return None
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{file} is damaged: {error}", fix="Delete it and resume to have it made again") from error

    def write_note(self, name: str, value: dict[str, Any]) -> None:
        write_text(self.path / f"{name}.json", json.dumps(value, indent=1, ensure_ascii=False) + "\n")

    @property
    def plan(self) -> Plan | None:
        saved = self.note("plan")
        return None if saved is None else from_json(Plan, saved["plan"], where=str(self.path / "plan.json"))


def _others(path: Path) -> str | None:
    runs = sorted(found.parent.name for found in path.parent.glob("*/run.toml")) if path.parent.is_dir() else []
    return f"There are: {', '.join(runs[:8])}" if runs else "Make one with underhood build"
