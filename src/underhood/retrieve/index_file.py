"""The file format of a passage index: one zip archive with JSON and NumPy arrays, no pickle.

Members: ``index.json`` (format, versions, facts), ``passages.jsonl`` (one passage per line), ``vocabulary.txt`` (one
term per line), and the term counts of every passage in ``starts.npy``, ``terms.npy`` and ``counts.npy``.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from underhood.core.errors import UserError
from underhood.core.text_files import encode
from underhood.retrieve.bm25 import BM25, FieldWeight, TermCounts
from underhood.retrieve.passages import Passage
from underhood.retrieve.terms import TERMS_VERSION

FORMAT = "underhood passages"
VERSION = 1
_DATE = (1980, 1, 1, 0, 0, 0)
_ARRAYS = ("starts", "terms", "counts")


def pack(passages: Sequence[Passage], bm25: BM25, facts: Mapping[str, Any]) -> bytes:
    """The bytes of an index file; equal for equal indexes."""
    head = {
        "format": FORMAT,
        "version": VERSION,
        "terms_version": TERMS_VERSION,
        "passages": len(passages),
        "facts": dict(facts),
    }
    lines = [json.dumps(_compact(passage), ensure_ascii=False) for passage in passages]
    members: dict[str, bytes] = {
        "index.json": encode(json.dumps(head, ensure_ascii=False, indent=1)),
        "passages.jsonl": _encoded(lines),
        "vocabulary.txt": _encoded(bm25.vocabulary),
    }
    for name in _ARRAYS:
        array = io.BytesIO()
        np.save(array, getattr(bm25.documents, name), allow_pickle=False)
        members[f"{name}.npy"] = array.getvalue()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(zipfile.ZipInfo(name, _DATE), content, zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def unpack(
    path: Path, fields: Sequence[FieldWeight], k1: float
) -> tuple[tuple[Passage, ...], BM25 | None, dict[str, Any]]:
    """Passages, term index (None if another version of `terms` made it) and facts of an index file.

    Raises:
        UserError: no such file, not an index, a damaged one, or one of a later version.
    """
    mend = "Make it with: underhood index DATA --out " + (path.name or "notes.index")
    try:
        content = path.read_bytes()
    except OSError as error:
        what = "there is no index" if isinstance(error, FileNotFoundError) else "can't read the index"
        raise UserError(f"{what} {path}", fix=mend) from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            _check_extent(file, content)
            head = json.loads(file.read("index.json"))
            if not isinstance(head, dict) or head.get("format") != FORMAT:
                raise UserError(f"{path} is not an index of passages", fix=mend)
            if not isinstance(head.get("version"), int) or head["version"] > VERSION:
                raise UserError(
                    f"{path} was made by a later version of underhood",
                    expected=f"version {VERSION}",
                    got=str(head.get("version")),
                    fix="Update underhood, or make the index again",
                )
            passages = tuple(_passage(line) for line in file.read("passages.jsonl").decode(*_UTF8).split("\n")[:-1])
            if len(passages) != head["passages"]:
                raise ValueError(f"{len(passages)} passages of {head['passages']}")
            bm25 = _term_index(file, fields, k1) if head.get("terms_version") == TERMS_VERSION else None
            if bm25 is not None and len(bm25) != len(passages):
                raise ValueError(f"terms of {len(bm25)} passages")
            facts = head["facts"]
            if not isinstance(facts, dict):
                raise ValueError("the facts aren't a table")
    except zipfile.BadZipFile as error:
        raise UserError(f"{path} is not an index of passages", got=str(error), fix=mend) from error
    except (KeyError, ValueError, TypeError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UserError(f"the index {path} is damaged", got=str(error)[:100], fix=mend) from error
    return passages, bm25, facts


_END_OF_ARCHIVE, _END_SIZE = b"PK\5\6", 22
_UTF8 = ("utf-8", "surrogatepass")


def _check_extent(file: zipfile.ZipFile, content: bytes) -> None:
    """Raises ValueError unless the archive is the whole file: readers of zip pass over what is before and behind it."""
    first = min((member.header_offset for member in file.infolist()), default=0)
    if first:
        raise ValueError(
            f"{first:,} bytes precede it, perhaps another index: indexes can't be joined, --add adds to one"
        )
    rest = len(content) - content.rfind(_END_OF_ARCHIVE) - _END_SIZE
    if rest:
        raise ValueError(f"{rest:,} bytes follow its end")


def _encoded(lines: Sequence[str]) -> bytes:
    return "".join(line + "\n" for line in lines).encode(*_UTF8)


def _compact(passage: Passage) -> dict[str, Any]:
    """The fields that differ from their defaults."""
    empty = {"line": 1, "search_text": "", "weight": 1.0}
    return {name: value for name, value in asdict(passage).items() if name not in empty or value != empty[name]}


def _passage(line: str) -> Passage:
    passage = Passage(**json.loads(line))
    texts = (passage.title, passage.text, passage.source, passage.search_text)
    if not all(isinstance(text, str) for text in texts) or type(passage.line) is not int:
        raise ValueError("a passage's field has the wrong type")
    if type(passage.weight) not in (int, float):
        raise ValueError("a passage's weight isn't a number")
    return passage


def _term_index(file: zipfile.ZipFile, fields: Sequence[FieldWeight], k1: float) -> BM25:
    vocabulary = file.read("vocabulary.txt").decode(*_UTF8).split("\n")[:-1]
    arrays = [np.load(io.BytesIO(file.read(f"{name}.npy")), allow_pickle=False) for name in _ARRAYS]
    return BM25.restore(vocabulary, TermCounts(*arrays), fields, k1=k1)
