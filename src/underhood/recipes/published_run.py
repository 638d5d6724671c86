"""Other models where a run of a build is wanted: recognised, and refused with what does take them.

They are published models (a file, a folder or a name) and runs of ``underhood finetune`` and ``classify``.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from underhood.core.errors import UserError
from underhood.infer.fetch import is_on_hub
from underhood.infer.model_table import locate_named
from underhood.models.gguf_reader import is_gguf
from underhood.recipes.settings_files import TUNED_SETTINGS_FILES


def names_published(path: Path) -> bool:
    """Whether a path, a name of the model table or a name on the Hub means a published model; nothing is downloaded."""
    location: str | Path | None = path
    if not path.exists() and not is_on_hub(path):
        try:
            location = locate_named(path.as_posix())
        except UserError:  # a packaged model that has not been fetched
            return True
    if location is None or is_on_hub(location):
        return location is not None
    from underhood.infer.adapter_folder import is_adapter

    folder = Path(location)
    return (is_gguf(folder) and folder.exists()) or (folder / "config.json").exists() or is_adapter(folder)


def refuse_published(path: Path) -> None:
    """Raises a UserError where a path names a published model, which has no stages and no report of its own."""
    if not names_published(path):
        return
    raise UserError(
        f"{path} is a published model, not a run",
        fix="underhood finetune trains it, build --from makes a run of it, import --check says what it is",
    )


def is_finetuned(path: Path) -> bool:
    """Whether a folder is a run of ``underhood finetune`` or ``classify``."""
    return any((path / name).is_file() for name in TUNED_SETTINGS_FILES) and not (path / "run.toml").exists()


def refuse_finetuned(path: Path) -> None:
    """Raises a UserError where a path is such a run, whose one training has no stages to repeat or to measure."""
    if not is_finetuned(path):
        return
    raise UserError(
        f"{path} holds a fine-tuned model, not a run with stages",
        fix="underhood finetune trains it further, build --from makes a run of it, eval --text measures it",
    )


def refuse_without_file(path: Path, stage: str, options: str) -> None:
    """Raises a UserError where a stage's command gets a model that has no stages, and not the options to train it.

    Args:
        options: with which the command trains any model; empty where it can't.
    """
    if not options:
        return
    try:
        refuse_finetuned(path)
        refuse_published(path)
    except UserError as error:
        command = f"underhood {stage} {shlex.quote(str(path))} {options}"
        raise UserError(error.what, fix=f"{command} trains it, build --from makes a run of it") from None


def no_template_fix(model: Path) -> str:
    """How to get a chat template for a model that has none."""
    if is_gguf(model):
        return "Take the GGUF file or the Hugging Face folder of its chat model"
    return "Put the chat_template.jinja of its chat model beside it"


def model_stem(model: str | Path) -> str:
    """A model's name for the files and folders made of it: without folders, ``.gguf`` and a Hub revision."""
    name = str(model).partition("@")[0] if is_on_hub(model) else Path(model).expanduser().resolve().name
    return name.rpartition("/")[2].removesuffix(".gguf")
