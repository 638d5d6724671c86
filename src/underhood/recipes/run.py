"""A run is a folder: its settings, its log, its tokenizer, its checkpoints, its report."""

from __future__ import annotations

import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.core.files import sha256_of, storage_errors, write_text
from underhood.core.protocols import Tokenizer
from underhood.core.run_lock import LOCK, RunLock
from underhood.core.runlog import RunLog
from underhood.core.toml import read_toml, toml_text
from underhood.data.shards import TokenShards
from underhood.infer.load import IMPORTED
from underhood.infer.stages import SNAPSHOTS
from underhood.infer.tokenizer_files import BESIDE
from underhood.recipes.published_run import refuse_finetuned, refuse_published
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.registry import Stage, all_stages
from underhood.recipes.training_data import END
from underhood.retrieve.index import RUN_INDEX
from underhood.text.bpe import BytePairTokenizer
from underhood.text.chat import CHATML, Template
from underhood.text.load import load_chat_template, load_roles, load_tokenizer
from underhood.train.plan import Plan
from underhood.ui import notebook

if TYPE_CHECKING:
    from underhood.recipes.training_curves import TrainingCurves

CONTENTS = (
    *("run.toml", "events.jsonl", "data.json", "plan.json", "time.json", RUN_INDEX, "data", "checkpoints"),
    *(*BESIDE, IMPORTED),
)
"""What a run holds before its first model is trained."""


@dataclass(repr=False)
class Run:
    """An open run folder.

    Attributes:
        made: the folders that `create` had to make for it, the innermost first; None for a run that was there.
        lock: the right to write into it, held as long as the run is open; None in one that is only read.
    """

    path: Path
    spec: BuildSpec
    log: RunLog
    made: tuple[Path, ...] | None = None
    lock: RunLock | None = None

    @classmethod
    def create(cls, path: Path, spec: BuildSpec) -> "Run":
        """Makes the folder and writes ``run.toml``.

        Raises:
            UserError: there is a run already, another process makes one, or the place can't be written.
        """
        settings = toml_text(to_json(spec))
        if (path / "run.toml").exists():
            raise UserError(
                f"{path} already holds a run", fix=f"Go on with it by --resume, or choose another --out than {path}"
            )
        if path.exists() and not path.is_dir():
            raise UserError(f"{path} is a file", expected="a folder to make or an empty one")
        with storage_errors(path, "Choose another --out"):
            made = tuple(folder for folder in (path, *path.parents) if not folder.exists())
            try:
                path.mkdir(parents=True, exist_ok=True)
            except FileNotFoundError as error:  # /proc and its like
                raise UserError(f"can't make {path}: no folder can be made there", fix="Choose another") from error
            lock = RunLock.acquire(path)
            if there := sorted(file.name for file in path.iterdir() if file.name != LOCK):
                lock.release()
                raise UserError(
                    f"{path} is not empty",
                    expected="a folder to make or an empty one",
                    got=f"one with {there[0]} in it",
                )
        write_text(path / "run.toml", settings)
        return cls(path, spec, RunLog(path / "events.jsonl"), made, lock)

    def discard(self) -> None:
        """Takes back a run that `create` made and that came to nothing, with the folders made for it."""
        self.log.close()
        for name in CONTENTS:
            target = self.path / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        if self.lock is not None:
            self.lock.release()
        for folder in self.made or ():
            with suppress(OSError):  # somebody else has put something there meanwhile
                folder.rmdir()

    @classmethod
    def open(cls, path: Path, *, write: bool = True) -> "Run":
        """Opens an existing run.

        Args:
            write: take the lock, so that no other process writes into it meanwhile.

        Raises:
            UserError: no such run (the nearest others are named), another process writes into it, or a damaged
                ``run.toml``.
        """
        file = path / "run.toml"
        if not file.exists():
            refuse_finetuned(path)
            refuse_published(path)
            raise UserError(
                f"there is no run in {path}", expected="a folder that underhood build made", fix=_others(path)
            )
        lock = RunLock.acquire(path) if write else None
        spec = from_json(BuildSpec, read_toml(file), where=str(file))
        return cls(path, spec, RunLog(path / "events.jsonl"), lock=lock)

    def __repr__(self) -> str:
        return f"<run {self.path}: {', '.join(self.models) or 'no model yet'}>"

    def _repr_html_(self) -> str:
        facts = {"Folder": self.path, "Models": ", ".join(self.models) or "none yet", "Data": self.spec.data}
        table = notebook.facts_table(f"Run {self.path.name}", facts)
        return notebook.framed(table, *self.curves().charts())

    @property
    def models(self) -> list[str]:
        """The names of the models that have a checkpoint, in the order of the pipeline."""
        return [stage.model for stage in all_stages() if newest(self.checkpoints(stage.model)) is not None]

    def curves(self) -> TrainingCurves:
        """What training logged, stage by stage: ``run.curves()["pretrain"].loss`` is an array; shows as charts.

        Raises:
            UserError: the log is damaged.
        """
        from underhood.recipes.training_curves import read_training_curves

        return read_training_curves(self.path)

    def update(self, **changes: Any) -> "Run":
        """The same run under settings of which some differ from now on; ``run.toml`` says so.

        Args:
            changes: by the names of `BuildSpec.flat`.
        """
        spec = self.spec.changed(changes)
        write_text(self.path / "run.toml", toml_text(to_json(spec)))
        return replace(self, spec=spec)

    @property
    def tokenizer_file(self) -> Path:
        return self.path / "tokenizer.json"

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The run's own, or that of the model that it starts from."""
        if self.spec.from_ is None:
            return BytePairTokenizer.load(self.tokenizer_file)
        return load_tokenizer(self.path)

    @cached_property
    def template(self) -> Template | None:
        """How conversations are written: as the model that the run starts from has learnt it, else as ChatML."""
        return CHATML if self.spec.from_ is None else load_chat_template(self.path, self.tokenizer)

    @cached_property
    def end_id(self) -> int:
        """The token that closes each document, and opens the next."""
        if END in self.tokenizer.special:
            return self.tokenizer.special[END]
        roles = load_roles(self.path, self.tokenizer)
        return next(iter([*roles.prefix_ids, *roles.end_ids]), 0)

    @property
    def tokenizer_digest(self) -> str:
        """Identifies the tokenizer: shards and checkpoints name it, so that they are never read with another."""
        there = [self.path / name for name in BESIDE if (self.path / name).exists()]
        return sha256_of(self.tokenizer_file if self.tokenizer_file.exists() else there[0])

    @property
    def tokenizer_state(self) -> str | None:
        """What checkpoints say about the tokenizer: the digest of ``tokenizer.json``, where there is such a file."""
        return self.tokenizer_digest if self.tokenizer_file.exists() else None

    def shards(self, split: str) -> Path:
        """Folder of the token shards of ``train`` or ``held_out``."""
        return self.path / "data" / split

    def open_shards(self, split: str) -> TokenShards:
        """The token shards of a part, their checksums verified."""
        return TokenShards.open(self.shards(split), tokenizer_digest=self.tokenizer_digest)

    def checkpoints(self, model: str) -> Path:
        return self.path / "checkpoints" / model

    def snapshots(self, model: str) -> Path:
        """Weights of a model at steps of its training, small and without optimiser (see `recipes.film`)."""
        return self.path / SNAPSHOTS / model

    def training_folder(self, model: str) -> Path:
        """Checkpoints of a training that leaves its model elsewhere, from which it goes on."""
        return self.path / "training" / model

    def finished(self, stage: Stage) -> bool:
        """True when the newest checkpoint of the stage's model is its last, also by the plan as it is now."""
        path = newest(self.checkpoints(stage.model))
        if path is None:
            return False
        state = read_checkpoint(path).state
        planned = self.plan.find(stage.name) if self.plan is not None else None
        lengthened = planned is not None and planned.fixed and state["step"] < planned.steps
        return state.get("step") == state.get("steps") and not lengthened

    def forget(self, *models: str) -> None:
        """Removes `models` and what was measured: it no longer holds."""
        for name in ("results.json", "summary.json", "report.html"):
            (self.path / name).unlink(missing_ok=True)
        for model in reversed(models):
            shutil.rmtree(self.checkpoints(model), ignore_errors=True)
            shutil.rmtree(self.training_folder(model), ignore_errors=True)
            shutil.rmtree(self.snapshots(model), ignore_errors=True)

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


def differences(run: Run, wanted: BuildSpec) -> dict[str, Any]:
    """The settings in `wanted` that were given (differ from the defaults) and that the run does not have."""
    default, existing = BuildSpec().flat(), run.spec.flat()
    return {name: value for name, value in wanted.flat().items() if value not in (default[name], existing[name])}


def _others(path: Path) -> str | None:
    if any((path / name).exists() for name in ("config.json", "checkpoints")):
        return "It holds a model that was not built here: finetune trains it, eval measures it"
    runs = sorted(file.parent.name for file in path.parent.glob("*/run.toml")) if path.parent.is_dir() else []
    return f"There are: {', '.join(runs[:8])}" if runs else "Make one with underhood build"
