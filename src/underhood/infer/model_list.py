"""The models of this machine as a list: runs, named models and the cache of the Hugging Face Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.text_files import read_text
from underhood.infer.fetch import is_on_hub
from underhood.infer.load import IMPORTED
from underhood.infer.model_table import GGUF_SUFFIX, NamedPath, PackagedModel, kept_file, named_models
from underhood.infer.stages import stages_of
from underhood.text.files import read_json

_LICENCE = re.compile(r"^license:\s*['\"]?([\w.+-]+)", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class ListedModel:
    """One model of the list.

    Attributes:
        name: what commands take.
        source: "package", "name" (the user's own), "run" or "hub".
        kind: family or stages, and how the weights are stored.
        bytes: on disk; of a packaged model that is not here, of the download.
        context_length: tokens; None where it is not known or there is no longest one.
        licence: as the model's files name it; None where they do not.
        here: whether it is on this machine.
        path: where; None where it is not.
    """

    name: str
    source: str
    kind: str
    bytes: int
    context_length: int | None = None
    licence: str | None = None
    here: bool = True
    path: Path | None = None


def list_models(runs: Path) -> list[ListedModel]:
    """All models that commands can name.

    Args:
        runs: the folder with the runs.

    Raises:
        UserError: the user's table of names can't be read.
    """
    return [*_named(), *_runs(runs), *_hub_cache()]


def _named() -> Iterator[ListedModel]:
    named = named_models()
    for name, entry in sorted(named.items(), key=lambda item: isinstance(item[1], NamedPath)):
        if isinstance(entry, PackagedModel):
            path = entry.installed() or kept_file(name, entry)
            yield ListedModel(
                name=name,
                source="package",
                kind=entry.kind,
                bytes=entry.wheel_bytes if path is None else entry.file_bytes,
                context_length=entry.context_length,
                licence=entry.licence,
                here=path is not None,
                path=path,
            )
        elif is_on_hub(entry.path):
            yield ListedModel(name=name, source="name", kind=entry.path, bytes=0, here=False)
        else:
            yield _of_path(name, "name", Path(entry.path))


def _runs(folder: Path) -> Iterator[ListedModel]:
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if stages_of(path):
            yield _of_run(path.as_posix(), "run", path)


def _of_path(name: str, source: str, path: Path) -> ListedModel:
    """A file, a run or a Hugging Face folder; what can't be read is listed as that."""
    if not path.exists():
        return ListedModel(name=name, source=source, kind="missing", bytes=0, here=False)
    if path.suffix == GGUF_SUFFIX:
        return _of_gguf(name, source, path)
    return _of_run(name, source, path) if stages_of(path) else _of_folder(name, source, path)


def _of_gguf(name: str, source: str, path: Path) -> ListedModel:
    from underhood.models.gguf_reader import read_gguf

    size = path.stat().st_size
    try:
        file = read_gguf(path)
        family = file.architecture
    except UserError:
        return ListedModel(name=name, source=source, kind="damaged GGUF file", bytes=size, path=path)
    context, licence = file.metadata.get(f"{family}.context_length"), file.metadata.get("general.license")
    return ListedModel(
        name=name,
        source=source,
        kind=f"{family}, {_stored(file.metadata.get('general.file_type'))}",
        bytes=size,
        context_length=context if isinstance(context, int) else None,
        licence=str(licence) if licence else None,
        path=path,
    )


def _stored(file_type: Any) -> str:
    """llama.cpp's name of how most weights are stored, e.g. "Q4_1"."""
    from gguf import LlamaFileType

    try:
        return LlamaFileType(file_type).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except ValueError:
        return "GGUF"


def _of_run(name: str, source: str, path: Path) -> ListedModel:
    from underhood.core.checkpoint import newest

    stages = stages_of(path)
    checkpoint = newest(path / "checkpoints" / stages[-1])
    state = _json(checkpoint / "state.json") if checkpoint else {}
    spec, imported = state.get("spec"), _json(path / IMPORTED)
    family = (imported.get("facts") or {}).get("family")
    return ListedModel(
        name=name,
        source=source,
        kind=f"{family}, imported" if family else " ".join(stages),
        bytes=_bytes(checkpoint) if checkpoint else 0,
        context_length=spec.get("context_length") if isinstance(spec, dict) else None,
        licence=_licence(path),
        path=path,
    )


def _of_folder(name: str, source: str, path: Path, size: int | None = None) -> ListedModel:
    """A Hugging Face folder."""
    config = _json(path / "config.json")
    inner = config.get("text_config")
    text = inner if isinstance(inner, dict) else config
    contexts = [text.get(key) for key in ("max_position_embeddings", "n_positions", "max_sequence_length")]
    return ListedModel(
        name=name,
        source=source,
        kind=", ".join(str(config[key]) for key in ("model_type", "torch_dtype", "dtype") if config.get(key)),
        bytes=_bytes(path) if size is None else size,
        context_length=next((context for context in contexts if isinstance(context, int)), None),
        licence=_licence(path),
        path=path,
    )


def _hub_cache() -> Iterator[ListedModel]:
    """What the Hub's client has kept: models with a configuration, by their newest revision."""
    from huggingface_hub import constants, scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return
    for repo in sorted(repos, key=lambda repo: repo.repo_id):
        revisions = sorted(repo.revisions, key=lambda revision: revision.last_modified)
        if repo.repo_type == "model" and revisions and (revisions[-1].snapshot_path / "config.json").exists():
            yield _of_folder(f"hf:{repo.repo_id}", "hub", revisions[-1].snapshot_path, repo.size_on_disk)


def _licence(folder: Path) -> str | None:
    """The licence in the head of a model card."""
    try:
        card = read_text(folder / "README.md")
    except (OSError, UserError):
        return None
    head = card[3:].partition("\n---")[0] if card.startswith("---") else ""
    match = _LICENCE.search(head)
    return match[1] if match else None


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _json(file: Path) -> dict[str, Any]:
    """The object in a file; empty where there is none that can be read."""
    try:
        data = read_json(file)
    except (OSError, UserError):
        return {}
    return data if isinstance(data, dict) else {}
