"""Passages of whatever can be indexed: a folder, a file, the embedded documentation, a data set of the Hub."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.text_files import read_filled_text
from underhood.data.documents import Document
from underhood.data.files import SUPPORTED, read_file
from underhood.data.record_text import RECORD
from underhood.data.sources import load_corpus
from underhood.retrieve.passages import MAX_CHARACTERS, Passage, split_document

TEXT_FILES = (".md", ".rst", ".txt", ".py")
"""Files that are one document each, with lines."""

READABLE = (*TEXT_FILES, *(suffix for suffix in SUPPORTED if suffix not in TEXT_FILES))


def collect_passages(
    data: str,
    *,
    text_field: str | None = None,
    limit: int | None = None,
    max_characters: int = MAX_CHARACTERS,
    overlap: int = 1,
) -> list[Passage]:
    """The passages of `data`, cut as `split_document` says.

    Args:
        data: as for `load_corpus`: ``pydocs``, a file, a folder (read recursively, hidden files left out), or
            ``hf:OWNER/NAME``. Beside the files that a build reads, .rst and .py files are read.
        text_field: field (JSONL) or column (CSV, TSV, Parquet) that holds the text.
        limit: stop after this many documents.

    Raises:
        UserError: no such data, nothing in it to read, or a file that can't be understood.
    """
    passages: list[Passage] = []
    if data == "pydocs":
        from underhood.retrieve.documentation import documentation_passages

        passages += documentation_passages()
        documents = (document for document in load_corpus("pydocs").documents if document.kind == "topic")
    elif data.startswith("hf:"):
        documents = iter(load_corpus(data, text_field=text_field, limit=limit).documents)
    else:
        documents = _documents(data, text_field)
    for number, document in enumerate(documents):
        if limit is not None and number >= limit:
            break
        passages += split_document(document, max_characters=max_characters, overlap=overlap)
    if not passages:
        raise UserError(f"{data} holds no text", expected="at least one document that isn't empty")
    return passages


def corpus_passages(documents: Iterable[Document], *, max_characters: int) -> list[Passage]:
    """The passages of a build's documents, as they were read; sections of one file are put together again.

    So every passage knows its headings, its file and its line there.
    """
    passages: list[Passage] = []
    for document in _whole_files(documents):
        passages += split_document(document, max_characters=max_characters, facts=True)
    return passages


def _whole_files(documents: Iterable[Document]) -> Iterator[Document]:
    whole: Document | None = None
    for document in documents:
        if whole is not None:
            goes_on = whole.file and whole.file == document.file and whole.kind == document.kind != RECORD
            after = whole.source_line(whole.text.count("\n")) + 1
            if goes_on and whole.text.endswith("\n") and document.source_line(1) == after:
                first = whole.source_line(1)
                text = whole.text + document.text
                whole = replace(whole, text=text, lines=range(first, first + len(text.splitlines())))
                continue
            yield whole
        whole = document
    if whole is not None:
        yield whole


def readable_files(folder: Path) -> list[Path]:
    """The files below a folder that can be indexed, in order of path, hidden and empty ones left out.

    Raises:
        UserError: there is none.
    """
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in READABLE
        and path.is_file()
        and not any(segment.startswith((".", "__pycache__")) for segment in path.relative_to(folder).parts)
        and path.stat().st_size
    )
    if not files:
        raise UserError(f"{folder} holds nothing to read", expected=f"files of type {', '.join(READABLE)}")
    return files


def _documents(data: str, text_field: str | None) -> Iterator[Document]:
    path = Path(data).expanduser()
    if not path.exists():
        load_corpus(data)  # says what is wrong with the name
    if not path.is_dir():
        yield from _read(path, source_name(path), text_field)
        return
    for file in readable_files(path):
        yield from _read(file, source_name(file, path), text_field)


def source_name(file: Path, folder: Path | None = None) -> str:
    """How passages call a file: as one would type it from here, or below the folder's own name if that is elsewhere."""
    typed = Path(os.path.normpath(file))
    if not typed.is_absolute() and ".." not in typed.parts:
        return typed.as_posix()
    if folder is None:
        return file.name
    return (Path(folder.resolve().name) / file.relative_to(folder)).as_posix()


def _read(path: Path, name: str, text_field: str | None) -> Iterator[Document]:
    if path.suffix.lower() not in READABLE:
        raise UserError(f"can't read {path}: unsupported file type {path.suffix or '(none)'!r}", expected=_listed())
    if path.suffix.lower() in TEXT_FILES:
        yield Document(read_filled_text(path), name, path.suffix.lower().lstrip("."))
    else:
        yield from read_file(path, name, text_field=text_field)


def _listed() -> str:
    return ", ".join(READABLE)
