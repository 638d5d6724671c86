"""Text sources: the embedded corpus, a file, a folder, or a Hugging Face data set."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.core.text_files import neighbour_hint
from underhood.data.documents import Corpus, Document
from underhood.data.files import SUPPORTED, read_file


def load_corpus(spec: str, *, text_field: str | None = None, split: str = "train", limit: int | None = None) -> Corpus:
    """Reads a corpus.

    Args:
        spec: ``pydocs`` (the documentation inside this Python installation); a path to a file of a type
            that `read_file` knows; a folder of such files (read recursively, in order of path); or ``hf:OWNER/NAME`` or
            ``hf:OWNER/NAME:CONFIG`` for a data set on the Hugging Face Hub.
        text_field: field (JSONL) or column (CSV, TSV, Parquet) that holds the text.
        split: for ``hf:`` only.
        limit: stop after this many documents; nothing more is read or downloaded.

    Raises:
        UserError: no such path or data set, nothing readable in it, or a file that can't be understood.
    """
    if limit is not None and limit < 1:
        raise UserError("the limit of documents is too small", expected="1 or more", got=str(limit))
    if spec == "pydocs":
        from underhood.data.pydocs import pydocs_corpus

        corpus = pydocs_corpus()
        return corpus if limit is None else corpus.with_documents(corpus.documents[:limit])
    if spec.startswith("hf:"):
        from underhood.data.hub import hub_documents

        documents, facts = hub_documents(spec, split=split, text_field=text_field)
        return _corpus(documents, spec, limit, facts)
    path = Path(spec).expanduser()
    if path.is_dir():
        return _folder(path, text_field, limit)
    if not path.exists():
        raise _no_such_path(spec, path)
    return _corpus(read_file(path, path.name, text_field=text_field), path.name, limit, {"path": str(path)})


def _folder(folder: Path, text_field: str | None, limit: int | None) -> Corpus:
    visible = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(segment.startswith(".") for segment in path.relative_to(folder).parts)
    )
    wanted = [path for path in visible if path.suffix.lower() in SUPPORTED]
    if not wanted:
        raise UserError(
            f"{folder} holds nothing to read", expected=f"files of type {', '.join(SUPPORTED)}", got=_kinds(visible)
        )
    empty = [path for path in wanted if path.stat().st_size == 0]

    def documents() -> Iterator[Document]:
        for path in wanted:
            if path not in empty:
                yield from read_file(path, path.relative_to(folder).as_posix(), text_field=text_field)

    facts = {
        "path": str(folder),
        "files": len(wanted) - len(empty),
        "empty_files": len(empty),
        "other_files": len(visible) - len(wanted),
    }
    return _corpus(documents(), folder.resolve().name, limit, facts)


def _corpus(documents: Iterator[Document], name: str, limit: int | None, facts: dict[str, Any]) -> Corpus:
    taken = tuple(islice(documents, limit))
    if not any(document.text.strip() for document in taken):
        raise UserError(f"{name} holds no text", expected="at least one document that isn't empty")
    return Corpus(taken, name, facts=facts)


def _kinds(paths: list[Path]) -> str:
    kinds = sorted({path.suffix.lower() or "no extension" for path in paths})
    return f"{len(paths)} files ({', '.join(kinds[:6])})" if paths else "no files"


def _no_such_path(spec: str, path: Path) -> UserError:
    if nearest(spec, ["pydocs"]) and not path.suffix:
        return UserError(f"no such data {spec!r}", fix="Did you mean 'pydocs'?")
    if spec.count("/") == 1 and not path.suffix and not path.parent.exists():
        return UserError(f"no such file or folder: {spec}", fix=f"For a Hugging Face data set write hf:{spec}")
    return UserError(f"no such file or folder: {spec}", fix=neighbour_hint(path))
