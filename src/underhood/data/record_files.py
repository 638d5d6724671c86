"""JSON lines and Parquet files as records, each with its position in words for error messages."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError
from underhood.core.text_files import parse_json, read_content, read_filled_text


def json_lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The value of every line that is not blank, e.g. ``("a.jsonl line 3", {...})``.

    Raises:
        UserError: no such file, an empty one, or a line that is not JSON (it is named).
    """
    for number, line in enumerate(read_filled_text(path).split("\n"), start=1):
        if line.strip():
            where = f"{path} line {number}"
            try:
                yield where, parse_json(line)
            except json.JSONDecodeError as error:
                raise UserError(
                    f"{where} is not JSON ({error.msg} at column {error.colno})", fix="Each line is one JSON object"
                ) from None


def json_records(path: Path) -> Iterator[tuple[str, Any]]:
    """The records of a JSON file: of one array, e.g. ``("a.json record 3", {...})``, or of JSON lines.

    A file ``.json`` often holds JSON lines, and one ``.jsonl`` an array; the content decides.

    Raises:
        UserError: no such file, an empty one, or neither an array nor lines of JSON (the line is named).
    """
    text = read_filled_text(path)
    if not text.lstrip().startswith("["):
        first = next(line for line in text.split("\n") if line.strip())
        if path.suffix.lower() != ".json" or (_is_json(first) and not _is_json(text)):
            yield from json_lines(path)
            return
    try:
        records = parse_json(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path} line {error.lineno} is not JSON ({error.msg} at column {error.colno})") from None
    if not isinstance(records, list):
        raise UserError(f"{path} is not a list of records", expected="a JSON array", got=type(records).__name__)
    for number, record in enumerate(records, start=1):
        yield f"{path} record {number}", record


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every row, e.g. ``("a.parquet row 3", {...})``.

    Raises:
        UserError: no such file, an empty one, or not a Parquet file.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    read_content(path)  # a missing or empty file, in our words
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", record
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        short = " ".join(str(error).split())[:100]
        raise UserError(f"{path} is not a readable Parquet file ({short})") from error
