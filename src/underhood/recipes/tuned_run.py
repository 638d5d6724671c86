"""Fine-tuning run of a given model: its folder, its adapters, and the model that it leaves there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn

from underhood.core.checkpoint import module_tensors, newest, write_checkpoint
from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.core.files import sha256_of, storage_errors, write_text
from underhood.core.run_lock import LOCK, RunLock
from underhood.core.runlog import RunLog
from underhood.core.toml import read_toml, toml_text
from underhood.infer.adapter_folder import adapter_base, is_adapter
from underhood.infer.load import IMPORTED, LoadedModel
from underhood.infer.tokenizer_files import TOKENIZER_GGUF
from underhood.infer.tokenizer_files import copy_tokenizer_files as copy_files
from underhood.models.base import parameter_count
from underhood.models.published import published_config
from underhood.recipes.finetune_spec import TrainingSettings
from underhood.recipes.translation_spec import TranslateSpec
from underhood.text.bpe import BytePairTokenizer
from underhood.text.huggingface import HuggingFaceTokenizer

Settings = TypeVar("Settings", bound=TrainingSettings | TranslateSpec)
Result = TypeVar("Result")

BEGUN = ("split.json", "training", "teacher_answers.jsonl")
"""Files and folders of a training beside its settings and its log, before its model is there."""

SMALL_MODEL = 50_000_000
"""Parameters up to which all weights are trained unless a rank is given: LoRA saves memory that is not scarce here."""


@dataclass
class TunedFolder:
    """The folder of such a run while this process writes into it.

    Attributes:
        made: the folders that were made for it, the innermost first; None where the same job goes on.
    """

    path: Path
    settings: Path
    lock: RunLock
    log: RunLog
    made: tuple[Path, ...] | None

    @contextmanager
    def discarded_if_untrained(self) -> Iterator[None]:
        """Takes the folder back where the work stops before its first checkpoint.

        A corrected command then finds nothing in its way. What earlier calls began stays.
        """
        try:
            yield
        except BaseException:
            trained = newest(self.path / "training") is not None or (self.path / "checkpoints").exists()
            if self.made is not None and not trained:
                self.discard()
            raise
        finally:
            self.lock.release()

    def discard(self) -> None:
        """Removes what this process has made."""
        self.log.close()
        if self.made:
            shutil.rmtree(self.path, ignore_errors=True)
        else:  # an empty folder was there
            for name in (self.settings.name, "events.jsonl", *BEGUN):
                target = self.path / name
                if target.is_dir():
                    shutil.rmtree(target)
                else:
                    target.unlink(missing_ok=True)
        self.lock.release()
        for folder in self.made or ():
            with suppress(OSError):  # somebody else has put something there meanwhile
                folder.rmdir()


def claim_folder(spec: TrainingSettings | TranslateSpec, out: Path, file: str) -> TunedFolder:
    """Makes the folder and writes its settings, or finds the same job in it to go on with.

    Raises:
        UserError: the folder holds something else, or another process writes into it.
    """
    settings, made, text = out / file, None, toml_text(to_json(spec))
    if not settings.exists():
        if out.exists() and (not out.is_dir() or any(path.name != LOCK for path in out.iterdir())):
            raise UserError(f"{out} is not empty", fix="Choose another --out")
        with storage_errors(out, "Choose another --out"):
            made = tuple(folder for folder in (out, *out.parents) if not folder.exists())
            out.mkdir(parents=True, exist_ok=True)
    lock = RunLock.acquire(out)
    try:
        if settings.exists():
            made = None
            if from_json(type(spec), read_toml(settings), where=str(settings)) != spec:
                raise UserError(
                    f"{out} holds a training with other settings",
                    fix="Choose another --out, or give its settings again",
                )
        else:
            write_text(settings, text)
    except UserError:
        lock.release()
        raise
    return TunedFolder(out, settings, lock, RunLog(out / "events.jsonl"), made)


def training_in_folder(
    spec: Settings, out: Path, file: str, train: Callable[[Settings, Path, RunLog], Result]
) -> tuple[RunLog, Callable[[], Result]]:
    """Makes the folder and returns the log and the work to call.

    The two are apart so that whoever shows progress can listen before anything happens.

    Raises:
        UserError: see `claim_folder`.
    """
    folder = claim_folder(spec, out, file)

    def work() -> Result:
        with folder.discarded_if_untrained():
            return train(spec, out, folder.log)

    return folder.log, work


def rank_of(spec: TrainingSettings, model: nn.Module) -> int:
    """The rank of the adapters: the one given, or none for a small model."""
    if spec.lora_rank is not None:
        return spec.lora_rank
    return 0 if parameter_count(model) <= SMALL_MODEL else 16


def write_model(
    loaded: LoadedModel,
    out: Path,
    name: str,
    steps: int,
    *,
    chats: bool,
    groups: Mapping[str, Mapping[str, Tensor]] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Writes the trained model of `loaded` as the only checkpoint ``checkpoints/name``, with its tokenizer's files."""
    copy_tokenizer_files(loaded, out)
    file = out / "tokenizer.json"
    state = {
        "spec": to_json(loaded.model.spec, tagged=True),
        "stage": name,
        "model": name,
        "order": 0,
        "chats": chats,
        "step": steps,
        "steps": steps,
        "tokenizer": sha256_of(file) if file.exists() else None,
    }
    tensors = {"model": module_tensors(loaded.model)} | dict(groups or {})
    write_checkpoint(out / "checkpoints" / name, steps, tensors, state | dict(facts or {}), keep=1)


def copy_tokenizer_files(loaded: LoadedModel, out: Path) -> None:
    """The tokenizer's files beside a new model, and for a published one what says how it writes and opens texts.

    Of a GGUF file, byte-level tokenizers get the files of a Hugging Face folder; others keep the file's metadata. Of an
    adapter they are those of its base, unless it has its own.
    """
    if is_adapter(loaded.run):
        copy_tokenizer_files(replace(loaded, run=adapter_base(loaded.run)), out)
        if (loaded.run / "tokenizer.json").exists():
            copy_files(loaded.run, out)
            (out / TOKENIZER_GGUF).unlink(missing_ok=True)
        return
    if loaded.run.is_file() and isinstance(loaded.tokenizer, (BytePairTokenizer, HuggingFaceTokenizer)):
        _write_tokenizer_files(loaded, loaded.tokenizer, out)
        return
    with storage_errors(out, "Free some space"):
        copy_files(loaded.run, out)
        if (loaded.run / IMPORTED).exists():
            shutil.copyfile(loaded.run / IMPORTED, out / IMPORTED)
    if loaded.roles is not None and not (out / IMPORTED).exists():
        config = published_config(loaded.run)
        if not (out / "generation_config.json").exists() and "eos_token_id" in config:
            write_text(out / "generation_config.json", json.dumps({"eos_token_id": config["eos_token_id"]}) + "\n")
        write_text(out / IMPORTED, json.dumps({"source": str(loaded.run), "config": config}, indent=1) + "\n")


def _write_tokenizer_files(loaded: LoadedModel, tokenizer: BytePairTokenizer | HuggingFaceTokenizer, out: Path) -> None:
    """Tokenizer, chat template and special tokens of a GGUF file, in the files of a Hugging Face folder."""
    roles, template = loaded.roles, loaded.template
    assert roles is not None
    named = {id: name for name, id in tokenizer.special.items()}
    settings: dict[str, Any] = {"add_bos_token": bool(roles.prefix_ids)}
    for key, id in (
        ("bos_token", roles.bos_id),
        ("eos_token", next(iter(roles.end_ids), None)),
        ("pad_token", roles.pad_id),
    ):
        if id in named:
            settings[key] = named[id]
    with storage_errors(out, "Free some space"):
        tokenizer.save(out / "tokenizer.json")
        write_text(out / "tokenizer_config.json", json.dumps(settings, indent=1) + "\n")
        write_text(out / "generation_config.json", json.dumps({"eos_token_id": list(roles.end_ids)}) + "\n")
        if template is not None:
            write_text(out / "chat_template.jinja", template.jinja)
        about = {"source": str(loaded.run), "config": published_config(loaded.run)}
        write_text(out / IMPORTED, json.dumps(about, indent=1) + "\n")
