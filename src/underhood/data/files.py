"""Files as documents: text, Markdown, HTML, PDF, tables and records; errors name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError, nearest
from underhood.core.text_files import parse_json, read_filled_text
from underhood.data.documents import Document
from underhood.data.html_text import html_to_markdown
from underhood.data.record_text import RECORD, is_flat, name_column, record_text
from underhood.data.tables import data_table

HTML = (".html", ".htm", ".xhtml")
SUPPORTED = (".txt", ".md", *HTML, ".pdf", ".csv", ".tsv", ".jsonl", ".parquet")
SEPARATOR = "<|endoftext|>"
SECTION_BYTES = 4096
"""A text file without separators that is longer than four of these is cut into documents of about this size."""

TEXT_FIELDS = ("text", "content", "document", "body", "story", "article", "markdown")
"""Where the text of a record is looked for when nobody says, in this order."""


def read_file(path: Path, name: str, *, text_field: str | None = None) -> Iterator[Document]:
    """The documents of one file.

    - ``.txt``, ``.md``: lines of ``<|endoftext|>`` separate documents (as in TinyStories); else a file up to 16 kB is
      one document, and a longer one is cut into sections (see `sections`).
    - ``.html``: Markdown with the page's headings, lists, tables and code (see `html_text`).
    - ``.pdf``: one document per page, ``name.pdf#page=3``; the text layer only.
    - ``.csv``, ``.tsv``: one document per row: the text column, or else every column by its name (see `record_text`).
    - ``.jsonl``: one document per line: an object with a text field or with other plain fields, or a string.
    - ``.parquet``: one document per row of the text column.

    Args:
        name: what documents are called; those of a file with several get a ``#number`` (line number for JSONL, CSV).
        text_field: field or column that holds the text; by default the first of `TEXT_FIELDS` that is there.

    Raises:
        UserError: in no known encoding, binary, broken JSON (with its line number), no such field or column, unknown
            extension, a PDF without text, or no package to read one.
    """
    kind = path.suffix.lower()
    if kind in {".txt", ".md"}:
        yield from _text(path, name)
    elif kind in HTML:
        text, lines = html_to_markdown(read_filled_text(path))
        if not text.strip():
            raise UserError(f"{path} holds no text outside its scripts and navigation", expected="headings, paragraphs")
        yield Document(text, name, "html", file=name, lines=lines)
    elif kind == ".pdf":
        from underhood.data.pdf_text import pdf_pages

        yield from (Document(text, f"{name}#page={page}", "pdf") for page, text in pdf_pages(path))
    elif kind in {".csv", ".tsv"}:
        yield from _table(path, name, text_field)
    elif kind == ".jsonl":
        yield from _jsonl(path, name, text_field)
    elif kind == ".parquet":
        yield from _parquet(path, name, text_field)
    else:
        raise UserError(f"can't read {path}: unsupported file type {kind or '(none)'!r}", expected=", ".join(SUPPORTED))


def _text(path: Path, name: str) -> Iterator[Document]:
    text = read_filled_text(path)
    kind = path.suffix.lower().lstrip(".")
    pieces = _separated(text)
    if len(pieces) == 1 and len(text.encode("utf-8", "surrogatepass")) > 4 * SECTION_BYTES:
        pieces, first = [], 1
        for section in sections(text):
            pieces.append((section, first))
            first += len(section.splitlines())
    if len(pieces) == 1:
        yield Document(pieces[0][0], name, kind, lines=_from(*pieces[0]))
        return
    for number, (piece, first) in enumerate(pieces, start=1):
        yield Document(piece, f"{name}#{number}", kind, file=name, lines=_from(piece, first))


def _from(text: str, first: int) -> Sequence[int]:
    return () if first == 1 else range(first, first + len(text.splitlines()))


def _separated(text: str) -> list[tuple[str, int]]:
    """The texts between the separators, each with its first line; empty ones left out."""
    if SEPARATOR not in text:
        return [(text, 1)]
    pieces: list[tuple[list[str], int]] = [([], 1)]
    for number, line in enumerate(text.splitlines(keepends=True), start=1):
        if line.strip() == SEPARATOR:
            pieces.append(([], number + 1))
        else:
            pieces[-1][0].append(line)
    joined = [("".join(lines), first) for lines, first in pieces]
    return [piece for piece in joined if piece[0].strip()] or [(text, 1)]


def sections(text: str, size: int = SECTION_BYTES) -> list[str]:
    """Cuts a long text into documents of about `size` bytes; joined, they are the text again.

    A cut falls after a blank line, the first one after `size` bytes; where none comes before twice that size, after
    the next line end. A line is never cut. A last piece shorter than half a section stays with the one before it.
    """
    pieces: list[str] = []
    lines: list[str] = []
    length = 0
    for line in text.splitlines(keepends=True):
        lines.append(line)
        length += len(line.encode("utf-8", "surrogatepass"))
        if length >= 2 * size or (length >= size and not line.strip()):
            pieces.append("".join(lines))
            lines, length = [], 0
    if lines and pieces and length < size // 2:
        pieces[-1] += "".join(lines)
    elif lines:
        pieces.append("".join(lines))
    return pieces


def _jsonl(path: Path, name: str, field: str | None) -> Iterator[Document]:
    """Texts of JSON lines; where the first object has no text field, every object's fields by their names."""
    by_fields: bool | None = None
    records: list[tuple[int, dict[str, Any]]] = []
    for number, record in _json_values(path):
        if isinstance(record, str):
            yield Document(record, f"{name}#{number}", "jsonl", file=name, lines=(number,))
            continue
        chosen = field if field is not None else next((key for key in TEXT_FIELDS if key in record), None)
        if by_fields is None:
            by_fields = chosen is None and is_flat(record)
        if by_fields:
            records.append((number, record))
            continue
        if chosen is None or chosen not in record:
            raise _missing(f"{path} line {number}", chosen, list(record), "field")
        if not isinstance(record[chosen], str):
            raise UserError(
                f"{path} line {number}: field {chosen!r} is not text", expected="a string", got=_short(record[chosen])
            )
        yield Document(record[chosen], f"{name}#{number}", "jsonl", file=name, lines=(number,))
    columns = list(dict.fromkeys(key for _, record in records for key in record))
    yield from _records(name, records, columns)


def _json_values(path: Path) -> Iterator[tuple[int, Any]]:
    """The objects and strings of JSON lines, with their lines."""
    for number, line in enumerate(read_filled_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = parse_json(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{path} line {number} is not JSON ({error.msg} at column {error.colno})",
                fix='Each line is one JSON object, e.g. {"text": "..."}',
            ) from None
        if not isinstance(record, (str, dict)):
            raise UserError(
                f"{path} line {number} is not a JSON object", expected="an object or a string", got=line[:40]
            )
        yield number, record


def _table(path: Path, name: str, field: str | None) -> Iterator[Document]:
    header, rows = data_table(path)
    if field is not None and field not in header:
        raise _missing(str(path), field, header, "column")
    column = field or next((column for column in header if column.casefold() in TEXT_FIELDS), None)
    if column is None:
        yield from _records(name, [(line, dict(zip(header, cells, strict=True))) for line, cells in rows], header)
        return
    kind = path.suffix.lower().lstrip(".")
    for line, cells in rows:
        text = cells[header.index(column)]
        if text:
            yield Document(text, f"{name}#{line}", kind, file=name, lines=(line,))


def _records(name: str, records: Sequence[tuple[int, dict[str, Any]]], columns: Sequence[str]) -> Iterator[Document]:
    named_by = name_column(columns, [record for _, record in records])
    for line, record in records:
        text = record_text(record, named_by)
        if text:
            yield Document(text, f"{name}#{line}", RECORD, file=name, lines=(line,))


def _parquet(path: Path, name: str, field: str | None) -> Iterator[Document]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty", expected="text")
    try:
        with pq.ParquetFile(path) as file:
            column = _text_column(file.schema_arrow, path, field)
            number = 0
            for batch in file.iter_batches(batch_size=1024, columns=[column]):
                for value in batch.column(0).to_pylist():
                    number += 1
                    if isinstance(value, str):
                        yield Document(value, f"{name}#{number}", "parquet")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a readable Parquet file ({_short(error, 100)})") from error


def _text_column(schema: Any, path: Path, field: str | None) -> str:
    import pyarrow.types as types

    def is_text(column: Any) -> bool:
        return types.is_string(column.type) or types.is_large_string(column.type) or types.is_string_view(column.type)

    texts = [column.name for column in schema if is_text(column)]
    if field is not None:
        if field in texts:
            return field
        if field in schema.names:
            raise UserError(f"{path}: column {field!r} is not text", got=str(schema.field(field).type))
        raise _missing(str(path), field, schema.names, "column")
    chosen = next((name for name in TEXT_FIELDS if name in texts), texts[0] if len(texts) == 1 else None)
    if chosen is None and not texts:
        raise UserError(f"{path} has no text column", got=f"columns {', '.join(schema.names) or '(none)'}")
    if chosen is None:
        raise UserError(f"{path} has several text columns: {', '.join(texts)}", fix="Choose one with --text-field")
    return chosen


def _missing(where: str, field: str | None, there: Sequence[str], noun: str) -> UserError:
    if field is None:
        return UserError(
            f"{where} has no {noun} that is known to hold text",
            expected=f"one of {', '.join(TEXT_FIELDS)}",
            got=", ".join(there) or "none",
            fix="Name it with --text-field",
        )
    near = nearest(field, there)
    fix = f"Did you mean {near!r}?" if near else f"It has: {', '.join(there) or 'none'}"
    return UserError(f"{where} has no {noun} {field!r}", fix=fix)


def _short(value: Any, length: int = 40) -> str:
    text = repr(value) if not isinstance(value, Exception) else " ".join(str(value).split())
    return text if len(text) <= length else text[: length - 1] + "…"
